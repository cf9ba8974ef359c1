"""One MLflow run a step, under one parent run a pipeline.

The parent belongs to no process: it is found by the tag ``raregrade.group`` or created under a lock, so
steps that run in processes and containers of their own meet under it. Files on disk are what later
steps read; MLflow is a view of them. A store that goes away while a step works therefore costs a warning and not the
work, and not the log either: that is kept and sent later. How a store is reached is the business of ``connection``.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raregrade.errors import ConfigError, InterruptedRunError
from raregrade.tracking.connection import NO_TRACKING, Connection, as_user_error, connect, sqlite_path, store_lock
from raregrade.tracking.delivery import ERROR_TAG, NOTE_TAG, PARENT_TAG, Courier, send_waiting
from raregrade.tracking.lineage import DatasetIdentity, git_commit
from raregrade.tracking.spool import About, Spool
from raregrade.tracking.values import dataset_input, flatten_params, metric_values, tag_values

if TYPE_CHECKING:
    from raregrade.config import Settings

GROUP_TAG = "raregrade.group"
STEP_TAG = "raregrade.step"
PARENT_STEP = "pipeline"
_STOPPED = (KeyboardInterrupt, SystemExit, InterruptedRunError)
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Tracking:
    """Where runs are logged.

    Attributes:
        uri: an MLflow tracking URI; with ``none`` nothing is logged and mlflow is never imported.
        experiment: name of the MLflow experiment, created where it is missing.
        group: names the parent run that steps share; empty means no parent.
        params_hash: of the parameters of the pipeline, from which ``for_dataset`` makes the group.
    """

    uri: str
    experiment: str
    group: str = ""
    params_hash: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.:-]{0,100}", self.group):
            raise ConfigError(
                f"tracking group {self.group!r}: expected at most 100 letters, digits and . : _ - "
                "(it comes from RAREGRADE_GROUP where that is set)"
            )

    @classmethod
    def of(cls, params: Settings) -> Tracking:
        """Where the steps of ``params`` log; ``for_dataset`` completes it once the data are known."""
        return cls(params.tracking.uri, params.tracking.experiment, params_hash=_params_hash(params))

    @property
    def enabled(self) -> bool:
        return self.uri != NO_TRACKING

    def for_dataset(self, content_hash: str) -> Tracking:
        """With the group of the pipeline that works on this dataset.

        A group that is set stays; then ``RAREGRADE_GROUP`` (on Kubeflow the job's id) counts, then 12 hex
        characters of a hash of parameters and data.
        """
        group = self.group or os.environ.get("RAREGRADE_GROUP", "").strip()
        group = group or hashlib.sha256(f"{self.params_hash}\n{content_hash}".encode()).hexdigest()[:12]
        return replace(self, group=group)


class StepRun:
    """The run of a step as the step sees it. This base logs nothing: it is the run of ``tracking.uri: none``."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log ``params``; nested mappings become dotted names, values over MLflow's limit are cut with a warning."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log ``metrics`` at ``step`` (the epoch) in one request; values that are not finite are left out."""

    def log_artifacts(self, path: Path, under: str = "") -> None:
        """Upload the file or folder ``path`` into the run's folder ``under``."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the run."""

    def describe_pipeline(self, note: str, metrics: Mapping[str, float] | None = None) -> None:
        """Put a paragraph (Markdown) on top of the parent's description and log ``metrics`` on the parent."""


def group_of(params: Settings, dataset_hash: str) -> str:
    """The tag that the steps of one pipeline share; see ``Tracking.for_dataset``."""
    return Tracking.of(params).for_dataset(dataset_hash).group


@contextmanager
def start_step(
    tracking: Tracking,
    step: str,
    *,
    name: str,
    data: DatasetIdentity | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[StepRun]:
    """Open the run of a step; on leaving, it is FINISHED, FAILED, or KILLED where the user stopped it.

    Args:
        tracking: where to log.
        step: name of the step, such as ``train``.
        name: what people see in the list of runs, such as ``train cdw_ce seed 1``. A step that is run
            again in the same group under the same name replaces the earlier attempt in the parent's status.
        data: the dataset that the step reads.
        tags: further tags.

    Raises:
        UserError: the store cannot be reached or refuses.
    """
    if not tracking.enabled:
        yield StepRun()
        return
    run = _LoggedRun.open(tracking, step, name, data, tags or {})
    try:
        yield run
    except BaseException as err:
        run.close("KILLED" if isinstance(err, _STOPPED) else "FAILED", err)
        raise
    run.close("FINISHED")


class _LoggedRun(StepRun):
    """Whatever it logs is kept in a file first and sent by a thread: see ``spool`` and ``delivery``."""

    def __init__(self, connection: Connection, tracking: Tracking, run_id: str, parent_id: str | None) -> None:
        self.connection = connection
        self.tracking = tracking
        self.run_id: str = run_id
        self.parent_id = parent_id

    @classmethod
    def open(
        cls, tracking: Tracking, step: str, name: str, data: DatasetIdentity | None, tags: Mapping[str, str]
    ) -> _LoggedRun:
        connection = connect(tracking.uri, tracking.experiment)
        # The step may change the working folder; a relative database must not move with it.
        tracking = replace(tracking, uri=connection.uri)
        client = connection.client
        with as_user_error(tracking.uri):
            inputs = [] if data is None else [dataset_input(data, step)]
            common = _common_tags(step, data) | ({GROUP_TAG: tracking.group} if tracking.group else {})
            parent_id = _parent_run(connection, tracking, common, inputs) if tracking.group else None
            own = {PARENT_TAG: parent_id} if parent_id else {}
            created = client.create_run(
                connection.experiment_id, run_name=name, tags=tag_values({**common, **own, **tags})
            )
            run_id = created.info.run_id
            if inputs:
                client.log_inputs(run_id, datasets=inputs)
            send_waiting(connection)
        return cls(connection, tracking, run_id, parent_id)

    @cached_property
    def _courier(self) -> Courier:
        """Begun with the first entry."""
        about = About.of(self.connection, self.tracking.experiment, self.run_id, self.parent_id)
        courier = Courier(Spool.create(about), self.connection)
        courier.start()
        return courier

    def log_params(self, params: Mapping[str, Any]) -> None:
        flat = list(flatten_params(params).items())
        for start in range(0, len(flat), 100):
            self._courier.add({"do": "params", "params": dict(flat[start : start + 100])})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._log_metrics(self.run_id, metrics, step)

    def log_artifacts(self, path: Path, under: str = "") -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        self._courier.add({"do": "artifacts", "path": str(path.absolute()), "under": under})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._courier.add({"do": "tags", "tags": tag_values(tags)})

    def describe_pipeline(self, note: str, metrics: Mapping[str, float] | None = None) -> None:
        if self.parent_id is not None:
            self._courier.add({"do": "note", "note": note})
            self._log_metrics(self.parent_id, metrics or {}, 0)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run with ``status`` and bring the parent's status up to date."""
        if error is not None:
            text = str(error).strip() or type(error).__name__
            self.set_tags({ERROR_TAG: text[:500]})
        self._courier.add({"do": "end", "status": status, "time": int(time.time() * 1000)})
        self._courier.close()

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        values = metric_values(metrics, step)
        for start in range(0, len(values), 1000):
            self._courier.add({"do": "metrics", "run": run_id, "metrics": values[start : start + 1000]})


def _params_hash(params: Settings) -> str:
    return hashlib.sha256(json.dumps(params.identity(), sort_keys=True).encode()).hexdigest()[:12]


def _common_tags(step: str, data: DatasetIdentity | None) -> dict[str, str]:
    tags = {
        STEP_TAG: step,
        "mlflow.user": _user(),
        "mlflow.source.name": f"raregrade {step}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git_commit(),
    }
    if data is not None:
        tags["raregrade.dataset.source"] = data.source
        tags["raregrade.dataset.content_hash"] = data.content_hash
        if data.dvc_md5:
            tags["raregrade.dataset.dvc_md5"] = data.dvc_md5
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"


def _parent_run(connection: Connection, tracking: Tracking, common: Mapping[str, str], inputs: list[Any]) -> str:
    """The parent of the group, created where there is none."""
    with store_lock(tracking.uri, tracking.experiment):
        found = _parents(connection, tracking.group)
        if found:
            parent_id = found[0]
            connection.client.update_run(parent_id, status="RUNNING")
            return parent_id
        tags = {
            **{key: common[key] for key in common if key != "mlflow.source.name"},
            STEP_TAG: PARENT_STEP,
            "mlflow.source.name": "raregrade",
            NOTE_TAG: _note(tracking.group),
        }
        created = connection.client.create_run(
            connection.experiment_id, run_name=f"pipeline {tracking.group[:8]}", tags=tag_values(tags)
        )
        if inputs:
            connection.client.log_inputs(created.info.run_id, datasets=inputs)
        if sqlite_path(tracking.uri) is not None:
            return str(created.info.run_id)
    return _settle(connection, tracking.group, str(created.info.run_id))


def _settle(connection: Connection, group: str, created: str) -> str:
    """Agree on one parent with processes on other machines, where the lock does not reach.

    All that found no parent created one; after a moment all see the same list and take its first.
    """
    time.sleep(_SETTLE_SECONDS)
    first = next(iter(_parents(connection, group)), created)
    if first != created:
        connection.client.delete_run(created)
    return first


def _parents(connection: Connection, group: str) -> list[str]:
    """Ids of the parent runs of ``group``, in an order that every process sees."""
    runs = connection.client.search_runs(
        [connection.experiment_id],
        f"tags.`{GROUP_TAG}` = '{group}' and tags.`{STEP_TAG}` = '{PARENT_STEP}'",
        max_results=100,
    )
    return [run.info.run_id for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))]


def _note(group: str) -> str:
    return (
        "**One pipeline of raregrade**: the same data and the same parameters, trained with each loss.\n\n"
        "Each run below is one step. `train …` holds parameters and metrics per epoch, `evaluate …` the metrics of "
        "that model on validation and test, `compare` the table of losses, `register` what the gate decided.\n\n"
        f"Steps find this run by the tag `{GROUP_TAG}` = `{group}`, a hash of parameters and data (on Kubeflow the "
        "job's id): change either, and a new one starts. Steps that DVC restored from its cache log nothing."
    )
