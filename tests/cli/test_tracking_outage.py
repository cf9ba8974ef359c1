"""An MLflow server that is killed in the middle of a training: the training goes on, and its log arrives later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import answers, free_port, process, with_tools_on_path

PROGRAM = str(Path(sys.executable).with_name("raregrade"))
EPOCHS = 40


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A tracking server that comes back on the same port with the same runs."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | with_tools_on_path()
    ready = answers(f"http://127.0.0.1:{port}/health")
    with process(command, ready=ready, log=folder / "mlflow.log", environment=environment, folder=folder) as child:
        yield child


def epochs_logged(client: Any) -> list[int]:
    experiment = client.get_experiment_by_name("raregrade")
    if experiment is None:
        return []
    runs = client.search_runs([experiment.experiment_id], "tags.`raregrade.step` = 'train'")
    return [m.step for run in runs for m in client.get_metric_history(run.info.run_id, "train_loss")]


def wait_until(condition: Callable[[], object], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert child.poll() is None, "the training ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_killed_in_mid_training_gets_every_epoch_once_it_is_back(
    run: Callable[..., Any], prepared: Path, project: Path
) -> None:
    from mlflow import MlflowClient

    port, folder = free_port(), project / "server"
    folder.mkdir()
    uri = f"http://127.0.0.1:{port}"
    command = [PROGRAM, "train", "--data", str(prepared / "prepared"), "--loss", "ce", "--out", "model"]
    command += ["--set", f"tracking.uri={uri}", "--set", f"train.epochs={EPOCHS}"]
    with server(folder, port) as mlflow, (project / "log").open("w") as log:
        client = MlflowClient(uri)
        with subprocess.Popen(command, cwd=project, stdout=log, stderr=log) as training:
            wait_until(lambda: len(epochs_logged(client)) >= 2, training)  # seen while it trains
            os.killpg(mlflow.pid, signal.SIGKILL)
            mlflow.wait()
            assert training.poll() is None
            code = training.wait(timeout=300)
    said = (project / "log").read_text()
    assert code == 0, said
    assert f"epoch {EPOCHS}/{EPOCHS}" in said
    # Said at the end in any case; that the server went away is said before, where the training lasts long enough.
    assert "lacks a part of run" in said
    assert "raregrade sync" in said
    assert (project / "model" / "model.json").is_file()
    assert list((project / ".raregrade" / "tracking").glob("*/entries.jsonl"))

    down = run("sync", "--set", f"tracking.uri={uri}")
    assert down.returncode == 2
    assert "no MLflow tracking server answers" in down.stderr

    with server(folder, port):
        sent = run("sync", "--set", f"tracking.uri={uri}")
        assert sent.returncode == 0, sent.stderr
        assert "complete in MLflow now" in sent.stdout
        client = MlflowClient(uri)
        assert epochs_logged(client) == list(range(1, EPOCHS + 1))
        (experiment,) = client.search_experiments(filter_string="name = 'raregrade'")
        (trained,) = client.search_runs([experiment.experiment_id], "tags.`raregrade.step` = 'train'")
        assert trained.info.status == "FINISHED"
        assert {file.path for file in client.list_artifacts(trained.info.run_id)} == {
            "curves.png",
            "history.csv",
            "model.json",
        }
        parent = client.get_run(trained.data.tags["mlflow.parentRunId"])
        assert parent.info.status == "FINISHED"
    assert not (project / ".raregrade" / "tracking").exists()
    assert run("sync", "--set", f"tracking.uri={uri}").stdout == "nothing waits to be sent\n"
