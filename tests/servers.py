"""Real servers for tests, each on a free port of this machine and gone at the end of its block.

``with postgres_server() as postgres``, ``with s3_server(folder) as s3``, ``with mlflow_server(folder) as mlflow``.
``from tests.servers import …`` works where the conftest of a folder puts the repository root on ``sys.path``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# The programs of this environment, such as mlflow and rclone.
TOOLS = Path(sys.executable).parent
_START_SECONDS = 240.0  # MLflow takes 12 to 28 s on a quiet machine


@dataclass(frozen=True)
class Postgres:
    """A running Postgres: host and port, and its superuser."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str = "postgres", driver: str = "postgresql") -> str:
        """What SQLAlchemy, MLflow and Optuna take."""
        return f"{driver}://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one SQL statement as superuser; its rows, if it has any."""
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


@dataclass(frozen=True)
class S3:
    """A running S3 server with the one pair of keys that it takes; each folder in ``folder`` is a bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """What boto3, MLflow and DVC read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket and return its URL."""
        (self.folder / name).mkdir()
        return f"s3://{name}"


def free_port() -> int:
    """A TCP port of this machine that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str | Path],
    *,
    ready: Callable[[], bool],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` from the moment ``ready`` says so until the end of the block, then end it and its children.

    Args:
        environment: all of it; this process's own where none is given.
        user: who runs it, where this process may choose (root); else this process's own user.
        stop: the signal that ends it; SIGKILL for the whole group follows after half a minute.

    Raises:
        AssertionError: it ended before it was ready, or was not ready in time; with its log.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(  # type: ignore[call-overload]
            [str(word) for word in command],
            env=dict(os.environ if environment is None else environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **_as_user(user),
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            said = log.read_text(errors="replace")[-4000:]
            assert child.poll() is None, f"{command[0]} ended with {child.returncode}:\n{said}"
            assert time.monotonic() < deadline, f"{command[0]} is not ready after {_START_SECONDS:.0f} s:\n{said}"
            time.sleep(0.2)
        yield child
    finally:
        child.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=30)


def _as_user(name: str | None) -> dict[str, object]:
    """What ``subprocess`` needs to run something as another user; only root may."""
    if name is None or os.geteuid() != 0:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def listens(port: int) -> Callable[[], bool]:
    """Whether somebody takes connections on ``port``."""

    def ask() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return True
        except OSError:
            return False

    return ask


def answers(url: str) -> Callable[[], bool]:
    """Whether a GET of ``url`` is answered with success."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            return False

    return ask


def postgres_binary(name: str) -> Path:
    """A program of Postgres; skips the test where Postgres is not installed. Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    if found is None:
        pytest.skip("Postgres is not installed: scripts/services-for-tests.sh installs it")
    return Path(found)


def postgres_account() -> str | None:
    """Who Postgres may run as: it refuses root. None where this process is an ordinary user's."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """An empty folder that ``postgres_account`` owns and can reach: pytest's own are closed to other users."""
    account = postgres_account()
    folder = Path(tempfile.mkdtemp(prefix="raregrade-postgres-", dir=None if account is None else "/tmp"))
    try:
        if account is not None:
            shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server(
    *,
    settings: Sequence[str] = (),
    initdb_options: Sequence[str] = ("--auth=scram-sha-256",),
    password: str | None = None,
) -> Iterator[Postgres]:
    """An empty Postgres with a password, on a free port; skips the test where Postgres is not installed.

    Args:
        settings: more words for ``postgres``, such as ``-c max_connections=200``.
        initdb_options: for the making of the cluster of databases, which is always UTF-8.
        password: of the superuser ``postgres``; a random one where none is given.
    """
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    account = postgres_account()
    postgres = Postgres("127.0.0.1", free_port(), "postgres", password or secrets.token_hex(16))
    with postgres_folder() as folder, tempfile.TemporaryDirectory(prefix="raregrade-log-") as logs:
        words = folder / "password"
        words.write_text(postgres.password)
        if account is not None:
            shutil.chown(words, account)
        data = folder / "data"
        subprocess.run(  # type: ignore[call-overload]
            [initdb, "-D", data, "-U", "postgres", f"--pwfile={words}", "-EUTF8", "-N", "--locale=C", *initdb_options],
            check=True,
            capture_output=True,
            cwd=folder,
            **_as_user(account),
        )
        # A database that nobody needs after the test need not survive a power cut.
        ours = {
            "listen_addresses": postgres.host,
            "port": str(postgres.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        command: list[str | Path] = [
            server,
            "-D",
            data,
            *(word for key, value in ours.items() for word in ("-c", f"{key}={value}")),
        ]
        # SIGINT is Postgres's fast shutdown; SIGTERM waits for clients to go.
        with process(
            [*command, *settings],
            ready=lambda: takes_queries(postgres),
            log=Path(logs) / "postgres.log",
            folder=folder,
            user=account,
            stop=signal.SIGINT,
        ):
            yield postgres


def takes_queries(postgres: Postgres) -> bool:
    """Whether Postgres has started: it takes connections a moment before it takes queries."""
    import psycopg2

    try:
        postgres.execute("SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """An S3 server that keeps its buckets in ``folder / "buckets"`` and checks keys."""
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    port = free_port()
    s3 = S3(f"http://127.0.0.1:{port}", "raregrade-test", secrets.token_hex(16), buckets)
    command: list[str | Path] = [TOOLS / "rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{s3.access_key},{s3.secret_key}", "--config", folder / "rclone.conf", buckets]
    with process(command, ready=listens(port), log=folder / "s3.log"):
        yield s3


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    backend: str | None = None,
    artifacts: str | None = None,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[str]:
    """An MLflow tracking server that hands on artifacts; its address.

    Args:
        backend: the URL of its database; an sqlite file in ``folder`` where none is given.
        artifacts: where the server keeps artifacts, such as ``s3://bucket``; else a folder in ``folder``.
        environment: added to this process's own.
        options: more words for ``mlflow server``, such as ``--app-name basic-auth``.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", artifacts or str(folder / "artifacts"), *options]
    # Job execution would start seven more processes.
    given = (
        os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | with_tools_on_path() | dict(environment or {})
    )
    url = f"http://127.0.0.1:{port}"
    with process(command, ready=answers(f"{url}/health"), log=folder / "mlflow.log", environment=given, folder=folder):
        yield url


def with_tools_on_path() -> dict[str, str]:
    """PATH with the programs of this environment first: MLflow starts uvicorn by name."""
    return {"PATH": os.pathsep.join([str(TOOLS), os.environ.get("PATH", "/usr/bin:/bin")])}
