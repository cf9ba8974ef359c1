"""Stores that cannot be reached or used: a clear error, soon, that says what to do."""

from __future__ import annotations

import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raregrade.errors import UserError
from raregrade.tracking import Tracking, start_step
from raregrade.tracking.connection import connect, open_client


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and never answers, as a server behind a broken proxy."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "postgresql", "postgresql+psycopg2"])
def test_a_server_that_is_down_is_reported_at_once(closed_port: int, scheme: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"tracking\.uri: none") as caught:
        connect(f"{scheme}://user:secret@127.0.0.1:{closed_port}", "grades")
    assert time.monotonic() - started < 60  # some 8 s; MLflow by itself would go on trying for minutes
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_never_answers_is_reported_before_minutes_pass(silent_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match="no MLflow tracking server answers"):
        connect(f"http://127.0.0.1:{silent_port}", "grades")
    assert time.monotonic() - started < 60  # some 8 s; MLflow by itself would go on trying for minutes


@pytest.fixture
def forbidding_port() -> Iterator[int]:
    """Answers 403 to everything but /health, as MLflow does to a host that is not allowed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 403)
            self.end_headers()
            self.wfile.write(b"Invalid Host header")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_the_server_refuses_is_passed_on(forbidding_port: int) -> None:
    with pytest.raises(UserError, match=r"refused.*403"):
        connect(f"http://127.0.0.1:{forbidding_port}", "grades")


@pytest.mark.parametrize("uri", ["./mlruns", "file:///somewhere/mlruns"])
def test_a_plain_folder_is_refused_with_what_works(uri: str) -> None:
    with pytest.raises(UserError, match=r"sqlite:///mlflow\.db"):
        open_client(uri)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="name a file"):
        open_client(uri)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello, this is a text file and not a database at all" * 100)
    with pytest.raises(UserError, match="not a database"):
        open_client(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        open_client(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_database_of_another_mlflow_version_is_reported_with_the_command(tracking: Tracking) -> None:
    with sqlite3.connect(tracking.uri.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'acf3f17fdcc7'")
    with pytest.raises(UserError, match=f"mlflow db upgrade {tracking.uri}"):
        open_client(tracking.uri)


def test_a_deleted_experiment_is_reported_with_how_to_restore_it(tracking: Tracking) -> None:
    connection = connect(tracking.uri, "grades")
    connection.client.delete_experiment(connection.experiment_id)
    with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {connection.experiment_id}"):
        connect(tracking.uri, "grades")


def test_without_mlflow_the_error_says_how_to_get_it_or_do_without(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from raregrade.tracking import Tracking, start_step\n"
        "with start_step(Tracking('sqlite:///mlflow.db', 'x'), 'train', name='train'): pass\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "raregrade[tracking]" in answer.stderr
    assert "tracking.uri: none" in answer.stderr


def test_usage_statistics_of_mlflow_are_off_unless_the_user_decides(tmp_path: Path) -> None:
    code = "from raregrade.tracking.connection import _set_defaults as d; d(); import os; print(os.environ.get({!r}))"
    name = "MLFLOW_DISABLE_TELEMETRY"
    plain = {k: v for k, v in os.environ.items() if k not in (name, "DO_NOT_TRACK")}
    for given, expected in (({}, "true"), ({name: "false"}, "false"), ({"DO_NOT_TRACK": "0"}, "None")):
        answer = subprocess.run(
            [sys.executable, "-c", code.format(name)], env=plain | given, capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == expected


@pytest.mark.parametrize("name", ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"])
def test_files_go_through_the_tracking_server_unless_the_user_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "true")
    open_client(f"sqlite:///{tmp_path}/mlflow.db")
    assert os.environ[name] == "true"
    monkeypatch.delenv(name)
    open_client(f"sqlite:///{tmp_path}/mlflow.db")
    assert os.environ[name] == "false"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real tracking server, sqlite and local files, ended by its process id."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": _path_with_venv()}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{_wait_for(port, process)}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _path_with_venv() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        assert process.poll() is None, "the server ended; see server.log"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return port
        time.sleep(0.2)
    raise TimeoutError(f"no server on port {port}")


@pytest.mark.slow
def test_steps_log_through_a_server_under_one_parent(server: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    tracking = Tracking(server, "grades", "group1")
    for seed in (1, 2):
        with start_step(tracking, "train", name=f"train ce seed {seed}") as run:
            run.log_params({"seed": seed})
            run.log_metrics({"val_qwk": 0.5}, step=1)
            run.log_artifacts(tmp_path / "note.txt")
    client = open_client(server)
    experiment = client.get_experiment_by_name("grades")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["pipeline group1", "train ce seed 1", "train ce seed 2"]
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["note.txt"]
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(parents) == 1
