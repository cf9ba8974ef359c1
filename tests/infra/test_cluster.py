"""The services of the dev overlay as real processes: Postgres, S3, MLflow with accounts, Optuna's dashboard, serving.

Their commands and environments are read from the manifests. What a team does with them is done here: register the
winner of a comparison, promote it, load it back through the server, serve it.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

from raregrade.config import GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import UserError
from raregrade.models.folder import load_model
from raregrade.registry import fetch_model, list_models, register_winner
from raregrade.registry.package import encode_png
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client
from tests.infra import policy
from tests.infra.manifests import KUBERNETES, ROOT, Document, closure
from tests.infra.stack import Container, Stack, kubernetes_container, localised, running
from tests.servers import TOOLS, answers, free_port, process

pytestmark = pytest.mark.slow
NAME = "phantom-severity"
AUTH = KUBERNETES / "base" / "platform" / "mlflow" / "basic_auth.ini"


@pytest.fixture(scope="module")
def secrets() -> dict[str, dict[str, str]]:
    """What ``create-secrets.sh`` prints, by the name of the secret; the runs' beside those of the services."""
    script = KUBERNETES / "create-secrets.sh"
    text = subprocess.run(["sh", script, "raregrade-dev"], capture_output=True, text=True, check=True).stdout
    return {document["metadata"]["name"]: document["stringData"] for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def containers(secrets: dict[str, dict[str, str]]) -> dict[str, Container]:
    """All containers of the dev overlay by name."""
    documents = [d for part in ("platform", "serving") for d in closure(KUBERNETES / "overlays" / "dev" / part)]
    settings = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    found = [container for _, pod in policy.pod_specs(documents) for container in policy.containers(pod)]
    return {container["name"]: kubernetes_container(container, settings, secrets) for container in found}


@pytest.fixture(scope="module")
def stack(
    containers: dict[str, Container], secrets: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The services, with the accounts `pipelines` and `serving` in MLflow."""
    with running(containers, tmp_path_factory.mktemp("cluster"), AUTH) as services:
        for name in ("raregrade-mlflow", "raregrade-serving"):
            made = make_account(services.mlflow, secrets, secrets[name]["username"], secrets[name]["password"])
            assert made.returncode == 0, made.stderr
        yield services


def make_account(
    server: str, secrets: Mapping[str, Mapping[str, str]], name: str, password: str
) -> subprocess.CompletedProcess[str]:
    admin = secrets["raregrade-mlflow-server"]
    environment = {
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_USERNAME": admin["admin-username"],
        "MLFLOW_TRACKING_PASSWORD": admin["admin-password"],
    }
    command = [sys.executable, ROOT / "infra" / "mlflow_account.py", name]
    return subprocess.run(command, input=password, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def as_account(monkeypatch: pytest.MonkeyPatch, secrets: dict[str, dict[str, str]]) -> Callable[[str], None]:
    """``as_account(SECRET)``: from now on this process is that account of MLflow."""

    def choose(secret: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", secrets[secret]["username"])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secrets[secret]["password"])

    return choose


def raregrade(*words: str, server: str) -> subprocess.CompletedProcess[str]:
    """The command line, with tracking at ``server``, as the account of this process."""
    command = [TOOLS / "raregrade", *words, "--set", f"tracking.uri={server}"]
    params = str(ROOT / "params.yaml")
    return subprocess.run([*command, "--params", params], capture_output=True, text=True, check=False, timeout=300)


def test_a_winner_is_registered_promoted_loaded_back_and_served(
    stack: Stack,
    as_account: Callable[[str], None],
    dataset: PreparedDataset,
    compare: Callable[..., Any],
    tmp_path: Path,
) -> None:
    as_account("raregrade-mlflow")
    contest = compare(dataset)
    tracking = Tracking(stack.mlflow, "grades", "group1")
    result = register_winner(
        comparison=contest.comparison,
        models=contest.models,
        data=dataset.root,
        gate=[GateRule(metric="val_auroc", threshold=0.0)],
        name=NAME,
        tracking=tracking,
    )
    assert (result.registered, result.version) == (True, "1")

    promoted = raregrade(
        "promote", NAME, "1", "--set", "gate=[{metric: val_auroc, threshold: 0.0}]", server=stack.mlflow
    )
    assert promoted.returncode == 0, promoted.stderr
    assert "champion is now version 1" in promoted.stdout
    assert list_models(NAME, tracking)[0].aliases == ("challenger", "champion")

    # The files are in the store and the runs in Postgres: the server and the client keep none.
    weights = list((stack.buckets / "mlflow").rglob("weights.safetensors"))
    assert len(weights) == 1
    assert stack.postgres.execute("SELECT name FROM registered_models", "mlflow") == [(NAME,)]

    images = dataset.images(dataset.rows("val")[:4])
    winner = load_model(next(folder for folder in contest.models if "cdw_ce" in folder.parts))
    expected = winner.probabilities(winner.predict(images))
    fetched = load_model(fetch_model(f"models:/{NAME}@champion", tracking, tmp_path / "fetched"))
    np.testing.assert_array_equal(fetched.probabilities(fetched.predict(images)), expected)

    with serving(stack, tmp_path) as address:
        rows = [[base64.b64encode(encode_png(image)).decode()] for image in images]
        answered = post(f"{address}/invocations", {"dataframe_split": {"columns": ["image"], "data": rows}})
        got = [[row[column] for column in dataset.label_space.prob_columns] for row in answered["predictions"]]
        np.testing.assert_allclose(got, expected, atol=1e-6)

    # The serving account reads, and changes nothing.
    from mlflow.exceptions import MlflowException  # seconds, which only this test is to spend

    as_account("raregrade-serving")
    with pytest.raises(MlflowException, match="Permission denied"):
        open_client(stack.mlflow).set_registered_model_alias(NAME, "staging", "1")
    assert list_models(NAME, tracking)[0].aliases == ("challenger", "champion")


@contextmanager
def serving(stack: Stack, folder: Path) -> Iterator[str]:
    """The serving container as a process, until the end of the block; gives its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    (folder / "tmp").mkdir()
    exchange = {"/tmp": str(folder / "tmp"), "0.0.0.0": "127.0.0.1", "=8080": f"={port}"}
    local = localised(stack.containers["serving"], exchange, {"MLFLOW_TRACKING_URI": stack.mlflow})
    with process(
        local.words,
        ready=answers(f"{address}/ping"),
        log=folder / "serving.log",
        environment=local.environment,
        folder=folder / "tmp",
    ):
        yield address


def post(url: str, body: Document) -> Any:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_without_an_account_nothing_is_read(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="authenticat"):
        list_models(None, Tracking(stack.mlflow, "grades", "group1"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "pipelines")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong password")
    with pytest.raises(UserError, match="authenticat"):
        list_models(None, Tracking(stack.mlflow, "grades", "group1"))


def test_an_account_is_given_a_new_password(stack: Stack, secrets: dict[str, dict[str, str]]) -> None:
    assert "made the account reader" in make_account(stack.mlflow, secrets, "reader", "the first password").stdout
    assert "a new password" in make_account(stack.mlflow, secrets, "reader", "the second password").stdout
    assert status(stack.mlflow, login=("reader", "the second password")) == 200
    assert status(stack.mlflow, login=("reader", "the first password")) == 401
    refused = make_account(stack.mlflow, secrets, "short", "1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "password" in refused.stderr.lower()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mlflow", 200),
        ("mlflow:5000", 200),
        ("mlflow.raregrade", 200),
        ("mlflow.raregrade:5000", 200),
        ("mlflow.raregrade.svc:5000", 200),
        ("mlflow.raregrade.svc.cluster.local", 200),
        ("mlflow.raregrade.svc.cluster.local:5000", 200),
        ("localhost:15000", 200),
        ("mlflow.raregrade.evil.example", 403),
        ("10.0.0.7:5000", 403),
    ],
)
def test_mlflow_answers_to_its_names_in_the_cluster_only(
    stack: Stack, secrets: dict[str, dict[str, str]], host: str, expected: int
) -> None:
    account = secrets["raregrade-mlflow"]
    assert status(stack.mlflow, host=host, login=(account["username"], account["password"])) == expected


def test_the_kubelet_is_answered_by_whatever_address_it_asks(stack: Stack) -> None:
    assert status(stack.mlflow, host="10.0.0.7:5000", path="/health") == 200


def status(
    server: str, *, host: str | None = None, path: str | None = None, login: tuple[str, str] | None = None
) -> int:
    """The status of a GET, by default of the list of registered models."""
    headers = {} if host is None else {"Host": host}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
    try:
        connection.request("GET", path or "/api/2.0/mlflow/registered-models/search?max_results=1", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_dashboard_shows_the_studies_in_postgres(
    stack: Stack, secrets: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are the dashboard's; a worker's account is that of the runs' secret, found by libpq."""
    import optuna

    account = secrets["raregrade-optuna"]
    for name, value in {
        "PGHOST": stack.postgres.host,
        "PGPORT": str(stack.postgres.port),
        "PGUSER": account["username"],
        "PGPASSWORD": account["password"],
    }.items():
        monkeypatch.setenv(name, value)
    storage = optuna.storages.RDBStorage("postgresql+psycopg2:///optuna")
    study = optuna.create_study(storage=storage, study_name="margins")
    study.optimize(lambda trial: trial.suggest_float("margin", 0, 1), n_trials=2)
    with urllib.request.urlopen(f"{stack.dashboard}/api/studies", timeout=30) as answer:
        assert [entry["study_name"] for entry in json.loads(answer.read())["study_summaries"]] == ["margins"]


def test_the_store_takes_its_own_key_only(stack: Stack, secrets: dict[str, dict[str, str]]) -> None:
    import boto3
    from botocore.exceptions import ClientError

    def buckets(secret: str) -> list[str]:
        keys = {"aws_access_key_id": secrets["raregrade-s3"]["access-key-id"], "aws_secret_access_key": secret}
        client = boto3.client("s3", endpoint_url=stack.store, region_name="us-east-1", **keys)
        return sorted(bucket["Name"] for bucket in client.list_buckets()["Buckets"])

    assert buckets(secrets["raregrade-s3"]["secret-access-key"]) == ["datasets", "mlflow"]
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        buckets("another")
