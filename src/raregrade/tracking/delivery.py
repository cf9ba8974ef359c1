"""Sending the entries of a ``Spool`` to MLflow, in order; and what becomes of one that MLflow does not take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from raregrade.tracking.connection import Connection, problem_with, store_lock
from raregrade.tracking.spool import About, Entry, Spool, reopened, store_hash, waiting_runs

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
ERROR_TAG = "raregrade.error"
# What MLflow will never take, however often it is sent. BAD_REQUEST is not one: so it calls a broken database as well.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
_KILLED = "the process ended without a word: killed, out of memory, or a power cut"
_RETRY_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
_PATIENCE_SECONDS = 30.0
_UPLOAD_PATIENCE_SECONDS = 600.0

_logger = logging.getLogger(__name__)


class Courier(threading.Thread):
    """Sends what a spool gets for as long as its run lives, so that work never waits for a network."""

    def __init__(self, spool: Spool, connection: Connection) -> None:
        # A daemon: MLflow tries for minutes to reach a server that has just gone, and what it tries to send is kept.
        super().__init__(name="tracking", daemon=True)
        self.spool = spool
        self.connection = connection
        self._news = threading.Event()
        self._closing = threading.Event()
        self._begun = time.monotonic()
        self._patience = _PATIENCE_SECONDS

    def add(self, entry: Entry) -> None:
        """Keep ``entry``, and send it soon."""
        self.spool.add(entry)
        self._news.set()

    def close(self) -> None:
        """Send what is left, for as long as MLflow takes it; say so where something remains."""
        self._begun = time.monotonic()
        self._closing.set()
        self._news.set()
        while self.is_alive() and time.monotonic() - self._begun < self._patience:
            self.join(0.2)
        waiting = len(self.spool)
        if not self.is_alive():
            self.spool.close()
        if waiting:
            kept = "The next command sends it, as does `raregrade sync`: it is kept in %s."
            lost = "Nor could it be kept in %s. The results on disk are complete."
            _logger.warning(
                f"MLflow at %s lacks a part of run %s. {kept if self.spool.durable else lost}",
                self.spool.about.where,
                self.spool.about.run_id,
                self.spool.folder,
            )

    def run(self) -> None:
        failures = 0
        while True:
            self._news.wait()
            self._news.clear()
            closing = self._closing.is_set()
            problem = send_all(self.spool, self.connection, self._begin)
            if problem and not failures:
                _logger.warning(
                    "MLflow at %s does not take what is logged (%s). Work goes on; the log is kept and sent later.",
                    self.spool.about.where,
                    problem,
                )
            elif failures and not problem:
                _logger.warning("MLflow at %s answers again and has what was kept.", self.spool.about.where)
            if closing:
                return
            failures = failures + 1 if problem else 0
            if problem:
                self._closing.wait(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1])
                self._news.set()

    def _begin(self, entry: Entry) -> None:
        self._begun = time.monotonic()
        self._patience = _UPLOAD_PATIENCE_SECONDS if entry["do"] == "artifacts" else _PATIENCE_SECONDS


@dataclass(frozen=True)
class Sent:
    """Ids of runs whose processes are gone: ``complete`` in MLflow now, and those of which something is ``left``."""

    complete: list[str]
    left: list[str]


def send_waiting(connection: Connection) -> Sent:
    """Send what processes that are gone have left behind for this store.

    A run that did not come to say how it ended, because its process was killed, is FAILED.
    """
    complete: list[str] = []
    left: list[str] = []
    for folder, about in waiting_runs().items():
        if about.store != store_hash(connection.uri):
            continue
        with reopened(folder) as spool:
            if spool is None:
                continue
            if not spool.ended:
                spool.add({"do": "killed", "time": spool.last_time()})
            problem = send_all(spool, Connection(connection.client, connection.uri, about.experiment_id))
            if problem:
                _logger.warning("the rest of run %s is not in MLflow yet: %s", about.run_id, problem)
            (complete if spool.empty else left).append(about.run_id)
    return Sent(complete, left)


def send_all(spool: Spool, connection: Connection, begin: Callable[[Entry], object] = lambda _: None) -> str:
    """Send everything in order. What keeps MLflow from taking more; empty where it has all that it will ever take.

    Args:
        spool: of the run.
        connection: to the store of the run.
        begin: is told what is sent next.
    """
    while (following := spool.next()) is not None:
        numbers, entry = following
        begin(entry)
        problem = problem_with(connection.uri)  # MLflow would try for minutes
        if problem:
            return problem
        try:
            _send(spool, connection, entry)
        except Exception as err:
            text = str(err).strip().partition("\n")[0] or type(err).__name__
            if getattr(err, "error_code", "") in _REFUSALS:
                _logger.warning("MLflow refuses to take %s of run %s: %s", entry["do"], spool.about.run_id, text)
                spool.tick(numbers)
            elif entry["do"] == "artifacts" and not problem_with(connection.uri):
                # Files go elsewhere than numbers, such as to S3: the one may work while the other does not.
                _logger.warning("%s could not be uploaded to MLflow: %s", entry["path"], text)
                spool.set_aside(numbers)
            else:
                return text
        else:
            spool.tick(numbers)
    return ""


def _send(spool: Spool, connection: Connection, entry: Entry) -> None:
    from mlflow.entities import Metric, Param, RunTag

    client, run_id = connection.client, spool.about.run_id
    match entry["do"]:
        case "params":
            client.log_batch(run_id, params=[Param(name, value) for name, value in entry["params"].items()])
        case "metrics":
            client.log_batch(entry["run"], metrics=[Metric(*values) for values in entry["metrics"]])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry["tags"].items()])
        case "artifacts":
            path = spool.path_of(entry)
            upload = client.log_artifacts if path.is_dir() else client.log_artifact
            upload(run_id, str(path), entry["under"] or None)
        case "note":
            _put_on_top(spool.about, connection, entry["note"])
        case "killed":
            # Another process may have gone on with the run, or ended it.
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_tag(run_id, ERROR_TAG, _KILLED)
                client.set_terminated(run_id, "FAILED", entry["time"])
                _close_parent(spool.about, connection)
        case "end":
            client.set_terminated(run_id, entry["status"], entry["time"])
            _close_parent(spool.about, connection)


def _put_on_top(about: About, connection: Connection, note: str) -> None:
    """Of the parent's description."""
    with store_lock(connection.uri, about.experiment):
        before = connection.client.get_run(about.parent_id).data.tags.get(NOTE_TAG, "")
        if note not in before:
            connection.client.set_tag(about.parent_id, NOTE_TAG, f"{note}\n\n{before}".strip())


def _close_parent(about: About, connection: Connection) -> None:
    """FAILED where the last attempt of some step failed or was stopped, else FINISHED.

    No step knows whether it is the last of its pipeline; a parent left RUNNING would stay so forever.
    """
    if about.parent_id is None:
        return
    client = connection.client
    with store_lock(connection.uri, about.experiment):
        children = client.search_runs(
            [about.experiment_id],
            f"tags.`{PARENT_TAG}` = '{about.parent_id}'",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
        )
        latest = {child.info.run_name: child.info.status for child in children}
        failed = any(status in ("FAILED", "KILLED") for status in latest.values())
        client.set_terminated(about.parent_id, "FAILED" if failed else "FINISHED")
