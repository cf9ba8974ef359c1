"""Workers of one machine: whoever is killed, the study ends as asked, and what was trained is not trained again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState

from raregrade.config import StudyStorage
from raregrade.errors import ConfigError, InterruptedRunError, RaregradeError
from raregrade.training.loop import fit
from raregrade.tuning import trial as trial_module
from raregrade.tuning.storage import open_storage
from raregrade.tuning.study import counts, open_study
from raregrade.tuning.workers import run_workers, work

from .conftest import MakePlan

RAREGRADE = str(Path(sys.executable).with_name("raregrade"))


def test_sqlite_with_more_than_one_worker_is_refused_with_the_reason(plan: MakePlan, tmp_path: Path) -> None:
    made = plan(storage=StudyStorage(url=f"sqlite:///{tmp_path / 'studies.db'}"))
    with pytest.raises(ConfigError, match=r"sqlite locks the whole file.*a Postgres, or set tune\.workers=1"):
        run_workers(made, 2)
    assert not (tmp_path / "studies.db").exists()


@pytest.mark.slow
def test_an_interrupted_trial_goes_on_from_its_checkpoint_with_the_same_outcome(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan("ce", trials=1, epochs=4, storage=StudyStorage(url=str(tmp_path / "whole")))
    work(whole)

    made = plan("ce", trials=1, epochs=4)
    steps: list[int] = []
    original = trial_module._TrialReporter.step

    def step(self: Any, *arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 5:  # in the third epoch: an epoch has two steps
            signal.raise_signal(signal.SIGTERM)
        original(self, *arguments)

    monkeypatch.setattr(trial_module._TrialReporter, "step", step)
    with pytest.raises(InterruptedRunError):
        work(made)
    work(made)

    outcomes = []
    for finished in (whole, made):
        study = open_study(open_storage(finished.storage), finished.search)
        trial = next(t for t in study.trials if t.state == TrialState.COMPLETE)
        outcomes.append((trial, trial.user_attrs["repeat_0"]))
    (first, once), (second, resumed) = outcomes
    assert resumed["resumed_at"] >= 2
    assert once["resumed_at"] == 0
    assert (second.value, resumed["epoch"], resumed["epochs"]) == (first.value, once["epoch"], once["epochs"])
    assert second.intermediate_values == first.intermediate_values
    assert not list((tmp_path / "checkpoints").rglob("state*.pt"))


@pytest.mark.slow
def test_a_repeat_that_is_finished_is_not_trained_again(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("ce", trials=1, repeats=2)
    seeds: list[int] = []

    def counting(*arguments: Any, seed: int, **named: Any) -> Any:
        seeds.append(seed)
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, seed=seed, **named)

    monkeypatch.setattr(trial_module, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        work(made)
    work(made)
    assert seeds[:3] == [10_001, 10_002, 10_002]
    assert 10_001 not in seeds[3:]


@pytest.mark.slow
def test_trainings_that_diverge_end_their_trials_as_pruned_and_the_study_says_so(plan: MakePlan) -> None:
    made = plan("ce", trials=2, space={"train": {"lr": {"choices": [9.0, 10.0]}, "weight_decay": 10.0}})
    train = made.search.section.train.model_copy(update={"optimizer": "sgd", "warmup_epochs": 0.0, "epochs": 12})
    wild = replace(made, search=replace(made.search, section=made.search.section.model_copy(update={"train": train})))
    with pytest.raises(RaregradeError, match=r"2 of 2: diverged: the outputs became NaN|1 of 2: diverged: the"):
        work(wild)
    study = open_study(open_storage(made.storage), wild.search)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 2
    assert all("diverged: the" in t.user_attrs["ended"] for t in study.trials)


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A project whose trials take a few seconds each, with a journal of its own."""
    params = {
        "data": {
            "source": "phantom",
            "path": "raw",
            "task": "ordinal",
            "classes": ["none", "mild", "moderate", "severe"],
            "image_size": 16,
        },
        "train": {"backbone": "test_resnet", "epochs": 12, "threads": 1, "precision": "float32", "lr": 3e-3},
        "losses": {"ce": {}, "cdw_ce": {"power": 2.0}},
        "compare": {"losses": ["ce", "cdw_ce"], "seeds": [1], "baseline": "ce"},
        "tune": {"trials": 6, "repeats": 1, "confirm": 2, "storage": "studies.log", "pruner": "none"},
        "tracking": {"uri": "none"},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "prepared").symlink_to(prepared)
    return tmp_path


def start(project: Path) -> subprocess.Popen[bytes]:
    command = [RAREGRADE, "tune", "--data", "prepared", "--loss", "ce", "--out", "tuned", "--workers", "2"]
    with (project / "stderr.log").open("ab") as log:
        return subprocess.Popen(command, cwd=project, stderr=log, stdout=log)


def study_of(project: Path) -> optuna.Study | None:
    storage = open_storage(StudyStorage(url=str(project / "studies.log"))).storage
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith("baseline-ce-")]
    return optuna.load_study(study_name=names[0], storage=storage) if names else None


def wait_until(project: Path, holds: Callable[[optuna.Study], bool]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        study = study_of(project)
        if study is not None and holds(study):
            return
        time.sleep(0.1)
    raise AssertionError((project / "stderr.log").read_text())


def workers_of(supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(supervisor.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def well_begun(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Running trials with a few epochs behind them, and so with a checkpoint, and some before them."""
    running = [t for t in study.trials if t.state == TrialState.RUNNING]
    return [t for t in running if 3 <= len(t.intermediate_values) <= 8]


def check_outcome(project: Path) -> optuna.Study:
    study = study_of(project)
    assert study is not None
    found = counts(study)
    assert (found.complete, found.open) == (6, 0)
    failed = sorted(t.number for t in study.trials if t.state == TrialState.FAIL)
    assert sorted(t.user_attrs["retry_of"] for t in study.trials if "retry_of" in t.user_attrs) == failed
    assert (project / "tuned" / "best.yaml").is_file()
    return study


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_is_replaced_and_its_trial_goes_on(project: Path) -> None:
    supervisor = start(project)
    try:
        wait_until(project, lambda study: bool(well_begun(study)))
        study = study_of(project)
        assert study is not None
        begun = well_begun(study)[0]
        # A worker's name holds its process id.
        pid = int(begun.user_attrs["worker"].rsplit("-", 2)[1])
        assert pid in [worker.pid for worker in workers_of(supervisor)]
        os.kill(pid, signal.SIGKILL)
        assert supervisor.wait(timeout=600) == 0, (project / "stderr.log").read_text()
    finally:
        supervisor.kill()
        supervisor.wait()
    assert "a worker ended by signal 9; another one takes its place" in (project / "stderr.log").read_text()
    successor = next(t for t in check_outcome(project).trials if t.user_attrs.get("retry_of") == begun.number)
    assert successor.params == begun.params
    assert successor.user_attrs["repeat_0"]["resumed_at"] >= 1
    assert successor.user_attrs["repeat_0"]["epochs"] == 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_stop_when_their_supervisor_is_killed_and_the_same_command_goes_on(project: Path) -> None:
    supervisor = start(project)
    try:
        wait_until(project, lambda study: counts(study).complete >= 1 and counts(study).running >= 1)
        workers = workers_of(supervisor)
        assert workers
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        _, alive = psutil.wait_procs(workers, timeout=120)
        assert not alive
    finally:
        supervisor.kill()
        supervisor.wait()
    before = study_of(project)
    assert before is not None
    finished = {t.number: t.value for t in before.trials if t.state == TrialState.COMPLETE}
    assert finished
    assert not (project / "tuned").exists()
    again = start(project)
    try:
        assert again.wait(timeout=600) == 0, (project / "stderr.log").read_text()
    finally:
        again.kill()
        again.wait()
    study = check_outcome(project)
    assert {number: study.trials[number].value for number in finished} == finished
