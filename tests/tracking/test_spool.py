"""What a run has to say is on the disk before it is sent: a dead server or a killed process loses nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raregrade.tracking import Tracking, start_step
from raregrade.tracking.connection import Connection, connect, open_client
from raregrade.tracking.delivery import Sent, send_all, send_waiting
from raregrade.tracking.spool import About, Spool, reopened, waiting_runs


def about(run_id: str = "run1", store: str = "s") -> About:
    return About(store, "http://mlflow", "grades", "1", run_id, None)


def metric(value: float, step: int = 0, run: str = "run1") -> dict[str, Any]:
    return {"do": "metrics", "run": run, "metrics": [["m", value, 1000 + step, step]]}


def entries(spool: Spool) -> list[dict[str, Any]]:
    """What would be sent, in order."""
    found = []
    while (following := spool.next()) is not None:
        found.append(following[1])
        spool.tick(following[0])
    return found


def left_behind(*added: dict[str, Any]) -> Path:
    """The folder of a spool whose process went away without a word."""
    spool = Spool.create(about())
    for entry in added:
        spool.add(entry)
    assert spool.folder is not None
    assert spool._lock is not None
    spool._lock.release(force=True)
    return spool.folder


def test_metrics_that_follow_each_other_go_in_one_request() -> None:
    spool = Spool.create(about())
    spool.add({"do": "params", "params": {"lr": "0.1"}})
    for step in range(3):
        spool.add(metric(0.5, step))
    spool.add(metric(0.7, run="parent"))
    spool.add({"do": "end", "status": "FINISHED", "time": 1})
    sent = entries(spool)
    assert [entry["do"] for entry in sent] == ["params", "metrics", "metrics", "end"]
    assert [values[3] for values in sent[1]["metrics"]] == [0, 1, 2]
    assert spool.empty
    spool.close()
    assert not Path(".raregrade").exists()


def test_a_request_never_holds_more_metrics_than_mlflow_takes() -> None:
    spool = Spool.create(about())
    for step in range(2500):
        spool.add(metric(0.5, step))
    sent = entries(spool)
    assert [len(entry["metrics"]) for entry in sent] == [1000, 1000, 500]


def test_what_was_sent_is_not_sent_again_and_half_a_line_is_no_entry() -> None:
    folder = left_behind(metric(1.0, 0), {"do": "tags", "tags": {"a": "b"}}, metric(2.0, 1))
    with reopened(folder) as spool:
        assert spool is not None
        following = spool.next()
        assert following is not None
        spool.tick(following[0])
    with (folder / "entries.jsonl").open("a") as file:
        file.write('{"do": "metrics", "ru')
    with reopened(folder) as spool:
        assert spool is not None
        assert [entry["do"] for entry in entries(spool)] == ["tags", "metrics"]
    assert not folder.exists()


def test_a_spool_that_is_in_use_is_left_alone() -> None:
    spool = Spool.create(about())
    spool.add(metric(1.0))
    (folder,) = waiting_runs()
    with reopened(folder) as other:
        assert other is None
    spool.tick([0])
    spool.close()


def test_files_are_kept_as_they_were_when_they_were_logged(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("before")
    spool = Spool.create(about())
    spool.add({"do": "artifacts", "path": str(tmp_path / "figures"), "under": ""})
    (tmp_path / "figures" / "a.png").write_text("after")
    following = spool.next()
    assert following is not None
    assert (spool.path_of(following[1]) / "a.png").read_text() == "before"
    spool.tick(following[0])
    spool.close()
    assert not Path(".raregrade").exists()


def test_no_password_is_written_down(tmp_path: Path) -> None:
    connection = Connection(None, "postgresql://team:secret-word@db/mlflow", "1")
    spool = Spool.create(About.of(connection, "grades", "run1", None))
    spool.add(metric(1.0))
    written = "".join(path.read_text() for path in Path(".raregrade").rglob("*") if path.is_file())
    assert "team:***@db" in written
    assert "secret-word" not in written


def test_where_nothing_can_be_written_entries_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("RAREGRADE_SPOOL", "file/spool")
    spool = Spool.create(about())
    spool.add(metric(1.0))
    assert not spool.durable
    assert [entry["do"] for entry in entries(spool)] == ["metrics"]
    spool.close()


def test_an_entry_that_mlflow_will_never_take_holds_up_nothing(
    tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    with start_step(tracking, "train", name="train") as run:
        run.log_params({"lr": 0.1})
        run.log_params({"lr": 0.2})
        run.log_metrics({"m": 1.0})
    client = open_client(tracking.uri)
    logged = client.get_run(run.run_id)
    assert (logged.info.status, logged.data.params, logged.data.metrics) == ("FINISHED", {"lr": "0.1"}, {"m": 1.0})
    assert "refuses to take params" in caplog.text


def test_sending_everything_twice_gives_the_same_run(tracking: Tracking, tmp_path: Path) -> None:
    connection = connect(tracking.uri, tracking.experiment)
    run_id = connection.client.create_run(connection.experiment_id).info.run_id
    (tmp_path / "note.txt").write_text("x")
    for _ in range(2):
        spool = Spool(About.of(connection, tracking.experiment, run_id, None), None)
        spool.add({"do": "params", "params": {"lr": "0.1"}})
        spool.add(metric(0.25, 1, run_id))
        spool.add(metric(0.5, 2, run_id))
        spool.add({"do": "artifacts", "path": str(tmp_path / "note.txt"), "under": ""})
        spool.add({"do": "end", "status": "FINISHED", "time": 5000})
        assert send_all(spool, connection) == ""
    assert [(m.step, m.value) for m in connection.client.get_metric_history(run_id, "m")] == [(1, 0.25), (2, 0.5)]
    assert connection.client.get_run(run_id).info.end_time == 5000


_KILLED_IN_A_STEP = """
import os, signal, sys
from raregrade.tracking import Tracking, start_step
with start_step(Tracking(sys.argv[1], "grades", "group1"), "train", name="train ce seed 1") as run:
    run._courier.spool.add({"do": "metrics", "run": run.run_id, "metrics": [["m", 0.5, 1000, 1]]})
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_next_command_sends_what_a_killed_process_left(tracking: Tracking) -> None:
    command = [sys.executable, "-c", _KILLED_IN_A_STEP, tracking.uri]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_id = killed.stdout.strip()
    client = open_client(tracking.uri)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert len(waiting_runs()) == 1

    with start_step(tracking, "evaluate", name="evaluate"):
        pass

    run = client.get_run(run_id)
    assert run.data.metrics == {"m": 0.5}
    assert run.info.status == "FAILED"
    assert "killed" in run.data.tags["raregrade.error"]
    assert waiting_runs() == {}


def test_what_waits_for_another_store_stays(tracking: Tracking) -> None:
    folder = left_behind(metric(1.0), {"do": "end", "status": "FINISHED", "time": 1})
    assert send_waiting(connect(tracking.uri, tracking.experiment)) == Sent([], [])
    assert json.loads((folder / "about.json").read_text())["where"] == "http://mlflow"
