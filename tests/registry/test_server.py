"""The whole way as on a cluster: a tracking server, a registered winner, and `mlflow models serve` asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.models.folder import load_model
from raregrade.registry import fetch_model, list_models, promote, register_winner, rollback
from raregrade.registry.package import encode_png
from raregrade.tracking import Tracking

NAME = "phantom-severity"


@contextmanager
def _running(arguments: list[str], folder: Path, health: str, environment: dict[str, str]) -> Iterator[str]:
    """An ``mlflow`` command that serves a port of this machine, from its first answer until the end of the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / f"{arguments[0]}.log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"PATH": path} | environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}{health}", process, Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(log.read_text())


def _ask(url: str, contents: list[bytes]) -> list[dict[str, Any]]:
    rows = [[base64.b64encode(content).decode()] for content in contents]
    request = urllib.request.Request(
        f"{url}/invocations",
        data=json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        predictions: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
    return predictions


@pytest.mark.slow
def test_a_winner_is_registered_through_a_server_promoted_and_served(
    dataset: PreparedDataset, compare: Callable[..., Any], tmp_path: Path
) -> None:
    contest = compare(dataset)
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/files"]
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _running(["server", "--workers", "1", *store], tmp_path, "/health", quick) as server:
        tracking = Tracking(server, "grades", "group1")
        result = register_winner(
            comparison=contest.comparison,
            models=contest.models,
            data=dataset.root,
            gate=[GateRule(metric="val_auroc", threshold=0.0)],
            name=NAME,
            tracking=tracking,
        )
        assert (result.registered, result.version) == (True, "1")
        assert promote(NAME, "1", tracking=tracking).moved
        assert list_models(NAME, tracking)[0].aliases == ("challenger", "champion")
        images = dataset.images(dataset.rows("val")[:8])
        winner = load_model(next(folder for folder in contest.models if "cdw_ce" in folder.parts))
        expected = winner.probabilities(winner.predict(images))
        fetched = load_model(fetch_model(f"models:/{NAME}@champion", tracking, tmp_path / "fetched"))
        np.testing.assert_array_equal(fetched.probabilities(fetched.predict(images)), expected)

        served = ["models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local"]
        with _running(served, tmp_path, "/ping", {"MLFLOW_TRACKING_URI": server}) as model:
            answers = _ask(model, [encode_png(image) for image in images])
            got = [[answer[column] for column in dataset.label_space.prob_columns] for answer in answers]
            np.testing.assert_allclose(got, expected, atol=1e-6)
            classes = dataset.label_space.classes
            assert [answer["grade"] for answer in answers] == [classes[i] for i in expected.argmax(axis=1)]
            with pytest.raises(urllib.error.HTTPError) as caught:
                _ask(model, [b"not an image"])
            assert "not a readable image" in caught.value.read().decode()
        with pytest.raises(Exception, match="before version 1"):
            rollback(NAME, tracking=tracking)
