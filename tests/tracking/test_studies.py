"""A study is a run under the pipeline's, and each trial a run under the study's, whoever works on it."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from raregrade.tracking import DatasetIdentity, Tracking
from raregrade.tracking.studies import REASON_TAG, STATE_TAG, STUDY_TAG, VERDICT_TAG, StudyLog, open_study_log


def opened(tracking: Tracking, dataset: DatasetIdentity, known: str | None = None) -> StudyLog:
    return open_study_log(tracking, "tune lmf", study="lmf-123", data=dataset, known=known)


def test_trials_lie_under_the_study_and_the_study_under_the_pipeline(
    tracking: Tracking, dataset: DatasetIdentity
) -> None:
    study = opened(tracking, dataset)
    trial = study.trial("lmf-123 trial 0", None)
    trial.log_params({"alpha": 0.3})
    for epoch in (1, 2):
        trial.log_epoch({"train_loss": 1.0 / epoch, "val_qwk": 0.2 * epoch}, epoch, 0)
    trial.log_epoch({"val_qwk": 0.5}, 1, 1)
    trial.close("COMPLETE", "")
    study.finish("Tuned lmf is better.", {"chosen": "tuned"}, {"best_trial": 0.4}, [])

    client = MlflowClient(tracking.uri)
    assert study.run_id is not None
    assert trial.run_id is not None
    parent, child = client.get_run(study.run_id), client.get_run(trial.run_id)
    pipeline = client.get_run(parent.data.tags["mlflow.parentRunId"])
    assert pipeline.data.tags["raregrade.step"] == "pipeline"
    assert "Tuned lmf is better." in pipeline.data.tags["mlflow.note.content"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags[STUDY_TAG] == "lmf-123"
    assert parent.data.tags[VERDICT_TAG] == "Tuned lmf is better."
    assert parent.data.metrics == {"best_trial": 0.4}
    assert child.data.tags["mlflow.parentRunId"] == study.run_id
    assert child.data.tags[STATE_TAG] == "COMPLETE"
    assert child.data.params == {"alpha": "0.3"}
    assert [m.value for m in client.get_metric_history(trial.run_id, "val_qwk")] == [0.2, 0.4]
    assert [m.value for m in client.get_metric_history(trial.run_id, "repeat_1/val_qwk")] == [0.5]


def test_pruned_and_interrupted_trials_are_marked_as_such(tracking: Tracking, dataset: DatasetIdentity) -> None:
    study = opened(tracking, dataset)
    pruned, stopped = study.trial("a", None), study.trial("b", None)
    pruned.close("PRUNED", "stopped after epoch 3 of 9")
    stopped.close("INTERRUPTED", "interrupted")
    client = MlflowClient(tracking.uri)
    assert pruned.run_id is not None
    assert stopped.run_id is not None
    run = client.get_run(pruned.run_id)
    assert (run.info.status, run.data.tags[STATE_TAG]) == ("FINISHED", "PRUNED")
    assert run.data.tags[REASON_TAG] == "stopped after epoch 3 of 9"
    assert client.get_run(stopped.run_id).info.status == "KILLED"


def test_another_worker_goes_on_with_the_runs_that_one_began(tracking: Tracking, dataset: DatasetIdentity) -> None:
    first = opened(tracking, dataset)
    begun = first.trial("a", None)
    begun.close("INTERRUPTED", "interrupted")
    second = opened(tracking, dataset, known=first.run_id)
    again = second.trial("a", begun.run_id)
    assert second.run_id == first.run_id
    assert again.run_id == begun.run_id
    again.log_metrics({"qwk": 0.7})
    again.close("COMPLETE", "")
    assert begun.run_id is not None
    run = MlflowClient(tracking.uri).get_run(begun.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"qwk": 0.7})


def test_a_run_that_was_deleted_is_replaced(tracking: Tracking, dataset: DatasetIdentity) -> None:
    study = opened(tracking, dataset)
    trial = study.trial("a", None)
    assert study.run_id is not None
    assert trial.run_id is not None
    MlflowClient(tracking.uri).delete_run(study.run_id)
    assert opened(tracking, dataset, known=study.run_id).run_id != study.run_id
    assert opened(tracking, dataset, known="0" * 32).run_id != "0" * 32
    assert study.trial("a", "0" * 32).run_id not in (None, "0" * 32)


def test_files_of_the_outcome_are_kept_with_the_study(
    tracking: Tracking, dataset: DatasetIdentity, tmp_path: Path
) -> None:
    (tmp_path / "best.yaml").write_text("better: false\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "history.png").write_bytes(b"png")
    study = opened(tracking, dataset)
    study.finish("Kept.", {}, {}, [tmp_path / "best.yaml", tmp_path / "figures"])
    assert study.run_id is not None
    client = MlflowClient(tracking.uri)
    assert {file.path for file in client.list_artifacts(study.run_id)} == {"best.yaml", "figures"}
    assert [file.path for file in client.list_artifacts(study.run_id, "figures")] == ["figures/history.png"]


def test_without_tracking_nothing_is_logged() -> None:
    log = StudyLog()
    trial = log.trial("a", None)
    trial.log_epoch({"val_qwk": 0.5}, 1, 0)
    trial.close("COMPLETE", "")
    assert (log.run_id, trial.run_id) == (None, None)
