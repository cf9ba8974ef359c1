"""Files of a tracking server in front of an S3 store that only the server can reach, as on a cluster."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from raregrade.tracking.connection import THROUGH_THE_SERVER, connect
from tests.infra.manifests import KUBERNETES, ROOT
from tests.servers import free_port, mlflow_server, s3_server

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the server. What this process sends anywhere else goes to a proxy that does not exist."""
    with s3_server(tmp_path) as s3:
        bucket = s3.create_bucket("mlflow")
        with mlflow_server(tmp_path, artifacts=bucket, environment=s3.environment()) as address:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
            monkeypatch.setenv("no_proxy", "localhost")
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            for name in THROUGH_THE_SERVER:
                monkeypatch.delenv(name, raising=False)
            yield address.replace("127.0.0.1", "localhost")


@pytest.mark.slow
def test_a_client_that_cannot_reach_the_store_sends_and_fetches_files(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with urllib.request.urlopen(f"{server}/api/3.0/mlflow/server-info", timeout=60) as answer:
        offered = json.loads(answer.read())
    assert offered["multipart_downloads_enabled"], "MLflow would not send clients to the store"
    (tmp_path / "weights.safetensors").write_bytes(b"\1" * 4096)
    connection = connect(server, "grades")
    client = connection.client
    run = client.create_run(connection.experiment_id).info.run_id
    # Size from which MLflow would send a file in parts.
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1024")
    client.log_artifact(run, str(tmp_path / "weights.safetensors"))
    (tmp_path / "fetched").mkdir()
    fetched = client.download_artifacts(run, "weights.safetensors", str(tmp_path / "fetched"))
    assert Path(fetched).read_bytes() == b"\1" * 4096


def test_the_model_server_and_the_image_are_set_to_it() -> None:
    (serving,) = (
        document
        for document in yaml.safe_load_all((KUBERNETES / "base/serving/serving.yaml").read_text())
        if document["kind"] == "Deployment"
    )
    (container,) = serving["spec"]["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    image = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
    for name, value in THROUGH_THE_SERVER.items():
        assert values[name] == value
        assert f"{name}={value} " in image
