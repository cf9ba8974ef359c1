"""A study on a real Postgres, with workers that start at once and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from raregrade.config import StudyStorage
from raregrade.errors import UserError
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import claim, counts, open_study, suggest
from tests.servers import Postgres, postgres_server

from .conftest import MakePlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RAREGRADE = str(Path(sys.executable).with_name("raregrade"))
TRIALS, CONFIRM = 6, 2


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


def on(url: str, **settings: int) -> StudyStorage:
    return StudyStorage(url=url, **({"heartbeat": 1, "grace": 3} | settings))


def test_a_wrong_password_is_one_error_that_does_not_repeat_it(server: Postgres) -> None:
    wrong = server.url().replace(server.password, "not-this-one")
    with pytest.raises(UserError, match="password authentication failed") as caught:
        open_storage(on(wrong))
    assert "not-this-one" not in str(caught.value)


def test_the_password_may_come_from_the_environment(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", server.password)
    shared = open_storage(on(server.create_database("by_environment").replace(f":{server.password}", "")))
    assert optuna.get_all_study_names(shared.storage) == []
    assert server.password not in shared.name


def test_a_trial_without_a_sign_of_life_is_put_back_and_a_living_one_is_not(server: Postgres, plan: MakePlan) -> None:
    shared, small = open_storage(on(server.create_database("heartbeats"))), plan(trials=2).search
    study = open_study(shared, small)
    dead = claim(shared, study, small, "a", retries=3)
    living = claim(shared, study, small, "b", retries=3)
    assert dead is not None
    assert living is not None
    suggest(dead, small.spaces)
    with shared.beating(living._trial_id):
        time.sleep(5)
        taken = claim(shared, study, small, "c", retries=3)
        assert claim(shared, study, small, "c", retries=3) is None
    assert taken is not None
    assert taken.user_attrs["retry_of"] == dead.number
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]
    # The one that was thought dead comes back: its outcome is dropped, so nothing is counted twice.
    assert study.tell(dead, 0.5, skip_if_finished=True).state == TrialState.FAIL
    assert counts(study).finished == 0


def start_worker(folder: Path, url: str) -> subprocess.Popen[bytes]:
    command = [RAREGRADE, "tune", "--data", "prepared", "--loss", "cdw_ce", "--worker", "--storage", url]
    with (folder / "workers.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stderr=log, stdout=log)


def write_params(folder: Path, prepared: Path, **tune: object) -> None:
    settings = {"trials": TRIALS, "repeats": 2, "confirm": CONFIRM, "heartbeat": 1, "grace": 4, "pruner": "hyperband"}
    params = {
        "data": {
            "source": "phantom",
            "path": "raw",
            "task": "ordinal",
            "classes": ["none", "mild", "moderate", "severe"],
            "image_size": 16,
        },
        "train": {"backbone": "test_resnet", "epochs": 3, "threads": 1, "precision": "float32", "lr": 3e-3},
        "losses": {"ce": {}, "cdw_ce": {"power": 2.0}},
        "compare": {"losses": ["ce", "cdw_ce"], "seeds": [1], "baseline": "ce"},
        "tune": settings | tune,
        "tracking": {"uri": "none"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "prepared").symlink_to(prepared)


def wait_for_running(shared: SharedStorage, at_least: int) -> None:
    """Until so many trials are at work at the same time."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        names = optuna.get_all_study_names(shared.storage)
        studies = [optuna.load_study(study_name=name, storage=shared.storage) for name in names]
        if sum(counts(study).running for study in studies) >= at_least:
            return
        time.sleep(0.05)
    raise AssertionError("the workers did not come to work")


def test_four_workers_two_of_them_killed_finish_what_was_asked_for(
    server: Postgres, prepared: Path, tmp_path: Path
) -> None:
    url = server.create_database("four_workers")
    write_params(tmp_path, prepared)
    # All four at once, on an empty database: tables and studies are made once.
    workers = [start_worker(tmp_path, url) for _ in range(4)]
    try:
        shared = open_storage(on(url))
        wait_for_running(shared, 3)
        for worker in workers[:2]:
            os.kill(worker.pid, signal.SIGKILL)
        codes = [worker.wait(timeout=600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    log = (tmp_path / "workers.log").read_text()
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0, 0], log

    names = optuna.get_all_study_names(shared.storage)
    assert sorted(name.rsplit("-", 1)[0] for name in names if not name.startswith("confirm")) == [
        "baseline-ce",
        "cdw_ce",
    ]
    for name in names:
        study = optuna.load_study(study_name=name, storage=shared.storage)
        asked = CONFIRM if name.startswith("confirm") else TRIALS
        found = counts(study)
        assert (found.finished, found.open) == (asked, 0), name
        failed = [t.number for t in study.trials if t.state == TrialState.FAIL]
        assert sorted(t.user_attrs["retry_of"] for t in study.trials if "retry_of" in t.user_attrs) == failed
        if name.startswith("confirm"):
            units = [t.user_attrs["unit"] for t in study.trials if t.state != TrialState.FAIL]
            assert sorted(units) == list(range(CONFIRM))

    done = subprocess.run(
        [RAREGRADE, "tune", "--data", "prepared", "--loss", "cdw_ce", "--out", "tuned", "--storage", url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "tuned" / "trials.csv")
    finished = table[table["state"].isin(["COMPLETE", "PRUNED"])]
    assert finished["role"].value_counts()[["search", "baseline"]].tolist() == [TRIALS, TRIALS]
    assert server.password not in log + done.stdout + done.stderr
