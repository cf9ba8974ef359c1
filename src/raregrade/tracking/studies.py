"""A study in MLflow: one run of the step ``tune``, and under it one run per trial.

Runs are created by explicit id: workers in processes of their own, on any machine, log into them, and the trial that
takes the place of a killed one goes on with its run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raregrade.errors import UserError
from raregrade.tracking.connection import as_user_error, connect
from raregrade.tracking.delivery import PARENT_TAG
from raregrade.tracking.lineage import DatasetIdentity
from raregrade.tracking.runs import STEP_TAG, Tracking, _LoggedRun

STATE_TAG = "raregrade.trial.state"
REASON_TAG = "raregrade.trial.reason"
VERDICT_TAG = "raregrade.verdict"
STUDY_TAG = "raregrade.study"
# MLflow knows no pruned runs: those are finished, and a tag says the rest.
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED", "INTERRUPTED": "KILLED"}

_logger = logging.getLogger(__name__)


class TrialLog:
    """The run of a trial. This base logs nothing."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log ``params``, once."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log ``metrics`` in one request."""

    def log_epoch(self, row: Mapping[str, float], epoch: int, repeat: int) -> None:
        """Log the metrics of an epoch in one request; those of later repeats under names of their own."""
        prefix = f"repeat_{repeat}/" if repeat else ""
        self.log_metrics({f"{prefix}{name}": value for name, value in row.items()}, epoch)

    def close(self, state: str, reason: str) -> None:
        """End the run: ``state`` is COMPLETE, PRUNED, FAIL or INTERRUPTED, ``reason`` says why it was not COMPLETE."""


class StudyLog:
    """The run of a study. This base logs nothing."""

    run_id: str | None = None

    def trial(self, name: str, known: str | None) -> TrialLog:
        """The run of a trial: ``known`` where an earlier worker began it, else a new one called ``name``."""
        del name, known
        return TrialLog()

    def finish(
        self, verdict: str, params: Mapping[str, Any], metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> None:
        """Log the outcome, put ``verdict`` on top of the pipeline's description, and end the run."""


def open_study_log(tracking: Tracking, name: str, *, study: str, data: DatasetIdentity, known: str | None) -> StudyLog:
    """The run of a study: ``known``, where it is still there, else a new one below the pipeline's.

    Call it under a lock that all workers of the study share. ``study`` is its name in its storage.

    Raises:
        UserError: the store cannot be reached or refuses.
    """
    if known is not None:
        found = _reopen(tracking, known)
        if found is not None:
            return _LoggedStudy(found)
    return _LoggedStudy(_LoggedRun.open(tracking, "tune", name, data, {STUDY_TAG: study}))


def _reopen(tracking: Tracking, run_id: str) -> _LoggedRun | None:
    """The run ``run_id``, running again; None where it was deleted or lies in another store."""
    from mlflow.exceptions import MlflowException

    connection = connect(tracking.uri, tracking.experiment)
    with as_user_error(tracking.uri):
        try:
            found = connection.client.get_run(run_id)
        except MlflowException as err:
            if err.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if found.info.lifecycle_stage != "active":
            return None
        connection.client.update_run(run_id, status="RUNNING")
    return _LoggedRun(connection, replace(tracking, uri=connection.uri), run_id, found.data.tags.get(PARENT_TAG))


class _LoggedStudy(StudyLog):
    def __init__(self, run: _LoggedRun) -> None:
        self._run = run
        self.run_id: str = run.run_id

    def trial(self, name: str, known: str | None) -> TrialLog:
        run = self._run
        try:
            if known is None or _reopen(run.tracking, known) is None:
                known = self._create(name)
        except UserError as err:
            # As everywhere: a store that goes away costs the log and not the work.
            _logger.warning("%s This trial is not logged.", err)
            return TrialLog()
        return _LoggedTrial(_LoggedRun(run.connection, run.tracking, known, None))

    def _create(self, name: str) -> str:
        run = self._run
        tags = {
            PARENT_TAG: self.run_id,
            STEP_TAG: "trial",
            STATE_TAG: "RUNNING",
            "mlflow.source.name": "raregrade tune",
        }
        with as_user_error(run.tracking.uri):
            created = run.connection.client.create_run(run.connection.experiment_id, run_name=name, tags=tags)
        return str(created.info.run_id)

    def finish(
        self, verdict: str, params: Mapping[str, Any], metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> None:
        self._run.set_tags({VERDICT_TAG: verdict})
        self._run.log_params(params)
        self._run.log_metrics(metrics)
        for path in artifacts:
            self._run.log_artifacts(path, path.name if path.is_dir() else "")
        self._run.describe_pipeline(verdict)
        self._run.close("FINISHED")


class _LoggedTrial(TrialLog):
    def __init__(self, run: _LoggedRun) -> None:
        self._run = run
        self.run_id: str = run.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._run.log_params(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._run.log_metrics(metrics, step)

    def close(self, state: str, reason: str) -> None:
        self._run.set_tags({STATE_TAG: state, **({REASON_TAG: reason} if reason else {})})
        self._run.close(_STATUS[state])
