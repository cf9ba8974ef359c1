"""Reaching an MLflow tracking store: is it there, does its database exist, which experiment.

The only module that turns a tracking URI into an ``MlflowClient``. It sets no global URI, and what
goes wrong on the way is a ``UserError`` that says what to do. Runs are the business of ``runs``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock

from raregrade.errors import UserError
from raregrade.tracking.relocate import artifact_location, check_in_place

NO_TRACKING = "none"
_WAY_OUT = "Start it or set tracking.uri; `tracking.uri: none` runs without logging."
_PROBE_ATTEMPTS = 3
_PROBE_SECONDS = 2.5
_LOCK_SECONDS = 120.0
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Without the kind, the side bar of MLflow's pages offers traces of language models and no training runs.
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Losses compared by raregrade. Each `pipeline …` run holds the steps of one set of parameters on one "
        "dataset: open it with the + beside its name."
    ),
}
_GATEWAY_ERRORS = (502, 503, 504)
# MLflow 3.17 otherwise asks its server whether the store behind it can sign URLs, and then sends the client there: to
# an address, such as that of S3 inside a cluster, which only the server can reach.
THROUGH_THE_SERVER = {
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}


@dataclass(frozen=True)
class Connection:
    """An ``MlflowClient`` with the absolute URI it was made from and the id of the experiment."""

    client: Any
    uri: str
    experiment_id: str


def connect(uri: str, experiment: str) -> Connection:
    """Open the store at ``uri``, creating a missing database and a missing experiment.

    Raises:
        UserError: mlflow is not installed, the store cannot be reached (known within ten seconds), it
            refuses, its schema is of another MLflow version, or the experiment was deleted.
    """
    client = open_client(uri)
    with store_lock(uri, experiment), as_user_error(uri):
        return Connection(client, absolute_uri(uri), _experiment_id(client, uri, experiment))


def open_client(uri: str) -> Any:
    """An ``MlflowClient`` for ``uri``, of which only ``UserError`` is raised (see ``connect``)."""
    if uri == NO_TRACKING:
        raise UserError("tracking.uri is none, and the model registry is part of MLflow. Set tracking.uri.")
    database = sqlite_path(uri)
    if database is None:
        _probe(uri)
    else:
        _make_folder(database)
    _set_defaults()
    try:
        from mlflow import MlflowClient
    except ImportError as err:
        raise UserError(
            f"tracking.uri is {uri}, but mlflow is not installed. "
            "Install it with `pip install 'raregrade[tracking]'`, or set `tracking.uri: none`."
        ) from err
    with as_user_error(uri), quiet("mlflow.store.db.utils", "alembic"):
        if database is None:
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        # Several processes that create one sqlite file at once break it: the first creates, the others wait.
        with store_lock(uri, ""):
            client = MlflowClient(tracking_uri=absolute_uri(uri), registry_uri=absolute_uri(uri))
            client.search_registered_models(max_results=1)
            check_in_place(database)
            return client


def absolute_uri(uri: str) -> str:
    """``uri`` with the path of an sqlite file made absolute, so that it holds in any working directory."""
    database = sqlite_path(uri)
    return uri if database is None else f"sqlite:///{database}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of an ``sqlite:`` URI, absolute; None for any other URI.

    Raises:
        UserError: an in-memory database, which would be gone when the process ends.
    """
    if not uri.startswith("sqlite:"):
        return None
    name = uri.removeprefix("sqlite:").removeprefix("///").partition("?")[0]
    if not name.strip("/") or name == ":memory:":
        raise UserError(f"tracking.uri = {uri!r}: name a file, such as sqlite:///mlflow.db")
    return Path(name).absolute()


def store_lock(uri: str, scope: str) -> filelock.BaseFileLock:
    """A lock between the processes of this user on this machine, for one ``scope`` within one store.

    Released by the operating system when its holder dies. Beside the database for sqlite, else in the
    folder for temporary files. ``filelock.Timeout`` after two minutes.
    """
    key = hashlib.sha256(f"{absolute_uri(uri)}\n{scope}".encode()).hexdigest()[:12]
    database = sqlite_path(uri)
    if database is not None:
        name = database.with_name(f"{database.name}.{key}.lock" if scope else f"{database.name}.lock")
    else:
        user = os.getuid() if hasattr(os, "getuid") else 0
        name = Path(tempfile.gettempdir()) / f"raregrade-{user}-{key}.lock"
    return filelock.FileLock(name, timeout=_LOCK_SECONDS)


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Leave out what ``loggers`` say below a warning, such as the lines that creating a database logs."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def as_user_error(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network raises into a ``UserError`` that names ``uri``."""
    try:
        yield
    except filelock.Timeout as err:
        raise UserError(
            f"another process has held {err.lock_file} for {_LOCK_SECONDS:.0f} s. "
            "See what holds it (`fuser FILE`), end it, and run again."
        ) from err
    except Exception as err:
        if type(err).__module__.split(".")[0] not in ("mlflow", "sqlalchemy", "requests", "urllib3", "alembic"):
            raise
        text = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        if "out-of-date database schema" in text:
            raise UserError(
                f"the MLflow database {masked(uri)} was made by another MLflow version. "
                f"Back it up, then run `mlflow db upgrade {masked(uri)}`."
            ) from err
        raise UserError(f"MLflow at {masked(uri)} refused: {text}. Its log says more.") from err


def _experiment_id(client: Any, uri: str, name: str) -> str:
    """The id of experiment ``name``, created where it is missing; call it under ``store_lock``."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = sqlite_path(uri)
        # Without a location MLflow writes artifacts to whatever folder the process happens to run in.
        location = None if database is None else artifact_location(database)
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # a process on another machine was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(
            f"experiment {name!r} was deleted in MLflow. Restore it (`mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`), or set another tracking.experiment."
        )
    return str(found.experiment_id)


def _make_folder(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(
            f"cannot create the folder of the MLflow database {database}: {err}. Set tracking.uri."
        ) from err
    if not os.access(database.parent, os.W_OK):
        raise UserError(f"cannot write to {database.parent}, the folder of the MLflow database. Set tracking.uri.")


def _set_defaults() -> None:
    """Unless the user decides otherwise: no usage statistics (the data are medical), no bars for small downloads,
    files through the tracking server alone."""
    if "DO_NOT_TRACK" not in os.environ:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", **THROUGH_THE_SERVER}.items():
        os.environ.setdefault(name, value)


def problem_with(uri: str) -> str:
    """Why nobody answers at ``uri``, found out within seconds; empty where somebody does, or where MLflow has to know.

    MLflow itself tries for four minutes.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return _ask_server(uri)
    return _ask_database(uri) if scheme.split("+")[0] in _DATABASE_PORTS else ""


def _probe(uri: str) -> None:
    if urlsplit(uri).scheme in ("", "file"):
        raise UserError(
            f"tracking.uri = {uri!r}: MLflow no longer writes runs to plain folders. "
            "Use sqlite:///mlflow.db, the address of a server, or none."
        )
    problem = ""
    for number in range(_PROBE_ATTEMPTS):
        if number:
            time.sleep(0.3)
        problem = problem_with(uri)
        if not problem:
            return
    raise UserError(f"no MLflow tracking server answers at {masked(uri)} ({problem}). {_WAY_OUT}")


def _ask_server(uri: str) -> str:
    """What is wrong with an HTTP server; empty where any program answers, with whatever status."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS):  # noqa: S310 - http(s) only
            return ""
    except urllib.error.HTTPError as err:
        return f"HTTP {err.code} {err.reason}" if err.code in _GATEWAY_ERRORS else ""
    except urllib.error.URLError as err:
        return "" if isinstance(err.reason, ssl.SSLError) else str(err.reason)  # MLflow has certificates of its own
    except (OSError, ValueError) as err:
        return str(err)


def _ask_database(uri: str) -> str:
    parts = urlsplit(uri)
    if not parts.hostname:
        return ""  # a local socket
    try:
        port = parts.port or _DATABASE_PORTS[parts.scheme.split("+")[0]]
        with socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS):
            return ""
    except (OSError, ValueError) as err:
        return str(err)


def masked(uri: str) -> str:
    """``uri`` without the password it may hold."""
    parts = urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri
