"""Runs in real sqlite stores: what a step logs, how it ends, and which parent it finds."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raregrade.config import load_params
from raregrade.errors import ConfigError, InterruptedRunError
from raregrade.tracking import DatasetIdentity, Tracking, group_of, start_step
from raregrade.tracking.connection import open_client

PARAMS = Path(__file__).parents[2] / "params.yaml"


def _runs(tracking: Tracking) -> list[Any]:
    client = open_client(tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def _children(tracking: Tracking) -> list[Any]:
    return [run for run in _runs(tracking) if "mlflow.parentRunId" in run.data.tags]


def _parent(tracking: Tracking) -> Any:
    (parent,) = [run for run in _runs(tracking) if run.data.tags["raregrade.step"] == "pipeline"]
    return parent


def _wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """What a run logs is sent by a thread of its own."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_tracking_nothing_is_logged_and_mlflow_is_never_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from raregrade.tracking import Tracking, start_step\n"
        "with start_step(Tracking('none', 'x').for_dataset('abc'), 'train', name='train ce seed 1') as run:\n"
        "    run.log_params({'a': 1}); run.log_metrics({'m': 1.0}, step=2); run.set_tags({'t': 'v'})\n"
        "    run.log_artifacts(Path('missing')); run.describe_pipeline('note')\n"
        "    assert run.run_id is None\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('mlflow', 'sqlalchemy', 'torch')]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_step_logs_parameters_metrics_files_and_where_it_comes_from(
    tracking: Tracking, dataset: DatasetIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREGRADE_GIT_COMMIT", "0123abc")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "confusion.png").write_bytes(b"png")
    (tmp_path / "model.json").write_text("{}")
    with start_step(tracking, "train", name="train ce seed 1", data=dataset, tags={"loss": "ce"}) as run:
        run.log_params({"train": {"lr": 0.001}} | {f"p{i}": i for i in range(250)})
        for epoch in range(3):
            run.log_metrics({"val_qwk": 0.1 * epoch, "val_f1_≥3": 0.5, "val_auroc": float("nan")}, step=epoch)
        run.log_artifacts(tmp_path / "figures", under="figures")
        run.log_artifacts(tmp_path / "model.json")

    (child,) = _children(tracking)
    assert child.info.run_id == run.run_id
    assert (child.info.status, child.info.run_name) == ("FINISHED", "train ce seed 1")
    assert len(child.data.params) == 251
    assert child.data.params["train.lr"] == "0.001"
    assert child.data.metrics == {"val_qwk": pytest.approx(0.2), "val_f1__3": 0.5}
    tags = child.data.tags
    assert tags["mlflow.parentRunId"] == _parent(tracking).info.run_id
    assert (tags["raregrade.step"], tags["raregrade.group"], tags["loss"]) == ("train", "group1", "ce")
    assert tags["mlflow.source.git.commit"] == "0123abc"
    assert tags["raregrade.dataset.dvc_md5"] == dataset.dvc_md5
    assert tags["raregrade.dataset.content_hash"] == dataset.content_hash
    assert child.inputs.dataset_inputs[0].dataset.digest == dataset.dvc_md5
    client = open_client(tracking.uri)
    history = client.get_metric_history(run.run_id, "val_qwk")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, pytest.approx(0.1)), (2, pytest.approx(0.2))]
    assert {f.path for f in client.list_artifacts(run.run_id)} == {"figures", "model.json"}


def test_files_lie_beside_the_database_wherever_the_step_runs(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    with start_step(tracking, "prepare", name="prepare") as run:
        run.log_artifacts(tmp_path / "note.txt")
    assert [p.name for p in (tmp_path / "store" / "mlartifacts").rglob("note.txt")] == ["note.txt"]
    assert list(Path.cwd().iterdir()) == []


def test_a_relative_database_is_found_from_where_the_client_was_made(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    with start_step(Tracking("sqlite:///mlflow.db", "grades", "g"), "train", name="train") as run:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        run.log_metrics({"m": 1.0})
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert _children(Tracking(f"sqlite:///{tmp_path}/mlflow.db", "grades"))[0].data.metrics == {"m": 1.0}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("loss is NaN"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (InterruptedRunError("stopped at epoch 3"), "KILLED"),
    ],
)
def test_a_step_that_does_not_finish_says_so(tracking: Tracking, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), start_step(tracking, "train", name="train ce seed 1"):
        raise error
    (child,) = _children(tracking)
    assert child.info.status == status
    assert child.data.tags["raregrade.error"] == (str(error) or "KeyboardInterrupt")
    assert _parent(tracking).info.status == "FAILED"


def test_a_step_that_succeeds_at_the_second_attempt_mends_the_parent(tracking: Tracking) -> None:
    with pytest.raises(ValueError, match="once"), start_step(tracking, "train", name="train ce seed 1"):
        raise ValueError("once")
    with start_step(tracking, "train", name="train lmf seed 1"):
        assert _parent(tracking).info.status == "RUNNING"
    assert _parent(tracking).info.status == "FAILED"
    with start_step(tracking, "train", name="train ce seed 1"):
        pass
    parent = _parent(tracking)
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time >= max(child.info.end_time for child in _children(tracking))


def test_steps_of_one_group_share_a_parent_and_other_groups_have_their_own(tracking: Tracking) -> None:
    other = Tracking(tracking.uri, tracking.experiment, "group2")
    for where, name in ((tracking, "prepare"), (tracking, "train ce seed 1"), (other, "prepare")):
        with start_step(where, name.split()[0], name=name):
            pass
    groups: dict[str, list[str]] = {}
    for child in _children(tracking):
        groups.setdefault(child.data.tags["mlflow.parentRunId"], []).append(child.info.run_name)
    assert sorted(groups.values()) == [["prepare"], ["prepare", "train ce seed 1"]]


def test_a_step_without_a_group_has_no_parent(tracking: Tracking) -> None:
    with start_step(Tracking(tracking.uri, tracking.experiment), "prepare", name="prepare"):
        pass
    (run,) = _runs(tracking)
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_run_that_kubeflow_puts_into_the_environment_is_left_alone(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_step(tracking, "prepare", name="prepare") as before:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", str(before.run_id))
    with start_step(tracking, "train", name="train ce seed 1") as run:
        run.log_metrics({"m": 1.0})
    assert run.run_id != before.run_id
    assert [child.data.metrics for child in _children(tracking)] == [{}, {"m": 1.0}]


def test_a_pipeline_is_described_once_however_often_a_step_runs(tracking: Tracking) -> None:
    for _ in range(2):
        with start_step(tracking, "compare", name="compare") as run:
            run.describe_pipeline("**cdw_ce wins**", {"val_qwk": 0.7})
    parent = _parent(tracking)
    assert parent.data.tags["mlflow.note.content"].count("**cdw_ce wins**") == 1
    assert parent.data.metrics == {"val_qwk": 0.7}


def test_a_store_that_goes_away_costs_neither_the_work_nor_the_log(
    tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "store" / "mlflow.db"
    (tmp_path / "note.txt").write_text("as it was logged")
    with caplog.at_level(logging.WARNING, "raregrade"):
        with start_step(tracking, "train", name="train ce seed 1") as run:
            run.log_metrics({"m": 1.0}, step=0)
            _wait_for(lambda: open_client(tracking.uri).get_metric_history(run.run_id, "m"))
            aside = shutil.copy(database, tmp_path / "aside.db")
            database.write_bytes(b"not a database any more" * 1000)
            run.log_metrics({"m": 2.0}, step=1)
            run.log_artifacts(tmp_path / "note.txt")
            run.log_metrics({"m": 3.0}, step=2)
        warnings = [r.getMessage() for r in caplog.records if r.name.startswith("raregrade")]
    assert ["the log is kept" in warnings[0], "raregrade sync" in warnings[1]] == [True, True]
    assert len(warnings) == 2
    database.write_bytes(Path(aside).read_bytes())
    (tmp_path / "note.txt").write_text("changed afterwards")

    with start_step(tracking, "evaluate", name="evaluate"):
        pass

    trained = next(child for child in _children(tracking) if child.info.run_id == run.run_id)
    assert trained.info.status == "FINISHED"
    client = open_client(tracking.uri)
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "m")] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert Path(client.download_artifacts(run.run_id, "note.txt")).read_text() == "as it was logged"
    assert not (Path.cwd() / ".raregrade").exists()


def test_a_missing_artifact_is_a_mistake_of_the_caller(tracking: Tracking, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), start_step(tracking, "train", name="train") as run:
        run.log_artifacts(tmp_path / "nothing")


def test_the_group_depends_on_parameters_and_data_not_on_the_server() -> None:
    params = load_params(PARAMS)
    group = group_of(params, "hash1")
    assert len(group) == 12
    assert group_of(load_params(PARAMS, ["tracking.uri=none", "tracking.experiment=x"]), "hash1") == group
    assert group_of(load_params(PARAMS, ["train.epochs=3"]), "hash1") != group
    assert group_of(params, "hash2") != group
    assert Tracking.of(params).for_dataset("hash1").group == group


def test_the_environment_overrides_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAREGRADE_GROUP", "job-17")
    assert group_of(load_params(PARAMS), "hash1") == "job-17"
    assert Tracking("none", "x", group="mine").for_dataset("hash1").group == "mine"


def test_a_group_that_mlflow_could_not_search_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAREGRADE_GROUP", "it's")
    with pytest.raises(ConfigError, match="RAREGRADE_GROUP"):
        Tracking("none", "x").for_dataset("hash1")


_LOG_ONE_STEP = """
import sys, time
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from raregrade.tracking import Tracking, start_step
uri, number, meeting = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
(meeting / str(number)).touch()
while len(list(meeting.iterdir())) < 4:
    time.sleep(0.01)
with start_step(Tracking(uri, "grades", "group1"), "train", name=f"train ce seed {number}") as run:
    run.log_metrics({"m": float(number)})
"""


@pytest.mark.slow
def test_processes_starting_together_on_a_fresh_database_share_a_parent(tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    uri = f"sqlite:///{tmp_path}/new/folder/mlflow.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", _LOG_ONE_STEP, uri, str(number), str(tmp_path / "meeting")])
        for number in range(4)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0, 0]
    tracking = Tracking(uri, "grades")
    assert len(_runs(tracking)) == 5
    parent = _parent(tracking)
    assert {c.data.tags["mlflow.parentRunId"] for c in _children(tracking)} == {parent.info.run_id}
    assert sorted(c.data.metrics["m"] for c in _children(tracking)) == [0.0, 1.0, 2.0, 3.0]
    assert parent.info.status == "FINISHED"
