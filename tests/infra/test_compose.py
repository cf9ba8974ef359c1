"""The compose file: valid, locked down, and its services started by their own commands as plain processes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from raregrade import __version__
from raregrade.tracking.connection import connect
from tests.infra import policy
from tests.infra.manifests import KUBERNETES, ROOT, Document
from tests.infra.stack import compose_container, running
from tests.servers import TOOLS, postgres_binary

INFRA = ROOT / "infra"
PLAIN = {"PATH": os.pathsep.join([str(TOOLS), "/usr/bin:/bin"]), "HOME": "/nowhere"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the compose file needs, elsewhere, so that a developer's own infra/.env is left alone."""
    for name in ("compose.yaml", ".env.example", "make-env.sh"):
        (tmp_path / "infra").mkdir(exist_ok=True)
        shutil.copy(INFRA / name, tmp_path / "infra" / name)
    return tmp_path


def make_env(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "infra/make-env.sh"]
    return subprocess.run(command, cwd=checkout, env=PLAIN, capture_output=True, text=True, check=False)


def config(checkout: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("podman", path=PLAIN["PATH"]) is None:
        pytest.skip("podman is not installed, and podman-compose asks for it: scripts/containers-for-tests.sh does")
    command = ["podman-compose", "--file", "infra/compose.yaml", "config"]
    return subprocess.run(command, cwd=checkout, env=PLAIN, capture_output=True, text=True, check=False)


def test_without_secrets_it_says_which_command_makes_them(checkout: Path) -> None:
    refused = config(checkout)
    assert refused.returncode != 0
    assert "run infra/make-env.sh" in refused.stderr


def test_the_example_holds_no_secret_and_is_asked_for_nothing_more(checkout: Path) -> None:
    lines = (INFRA / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert all(not value for key, value in example.items() if "PORT" not in key and "USERNAME" not in key)
    (checkout / "infra" / ".env").write_text("".join(f"{key}={value or 'x'}\n" for key, value in example.items()))
    assert config(checkout).returncode == 0


def test_secrets_are_random_private_and_never_overwritten(checkout: Path) -> None:
    assert make_env(checkout).returncode == 0
    path = checkout / "infra" / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text()
    secrets = [line.split("=")[1] for line in first.splitlines() if len(line.partition("=")[2]) == 48]
    assert len(set(secrets)) == 7
    again = make_env(checkout)
    assert (again.returncode, path.read_text()) == (2, first)
    assert "exists already" in again.stderr


def test_git_leaves_the_secrets_out() -> None:
    assert ".env" in (INFRA / ".gitignore").read_text().splitlines()


def test_it_breaks_no_rule() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert len(compose["services"]) == 6
    assert policy.compose_problems(compose) == []


def test_images_are_those_of_the_cluster() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    documents = [d for path in KUBERNETES.rglob("*.yaml") for d in yaml.safe_load_all(path.read_text()) if d]
    on_cluster = {c.get("image") for _, pod in policy.pod_specs(documents) for c in policy.containers(pod)}
    images = {service["image"] for service in compose["services"].values()}
    assert images == on_cluster - {None}
    assert f"localhost/raregrade:{__version__}" in images


def test_what_is_mounted_exists_and_what_waits_waits_for_something(checkout: Path) -> None:
    make_env(checkout)
    compose: Document = yaml.safe_load(config(checkout).stdout)
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if "/" in source:
                inside = Path(os.path.relpath(checkout / "infra" / source, checkout))
                assert (ROOT / inside).is_file(), source
            else:
                assert source in compose["volumes"]
        for other, wait in service.get("depends_on", {}).items():
            healthy = wait["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in compose["services"][other]), f"{name} waits for {other} forever"


@pytest.mark.slow
def test_its_services_work_together(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_env(checkout)
    services = yaml.safe_load(config(checkout).stdout)["services"]
    containers = {name: compose_container(service) for name, service in services.items()}
    containers["buckets"] = containers.pop("s3-buckets")
    folder = tmp_path / "services"
    folder.mkdir()
    with running(containers, folder, KUBERNETES / "base/platform/mlflow/basic_auth.ini") as stack:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", containers["mlflow"].environment["MLFLOW_AUTH_ADMIN_PASSWORD"])
        for name in ("postgres", "mlflow", "optuna-dashboard"):
            check_health(services[name]["healthcheck"]["test"], stack.mlflow, stack.dashboard, stack.postgres.port)

        (tmp_path / "report.html").write_text("<p>0.7</p>")
        connection = connect(stack.mlflow, "grades")
        run = connection.client.create_run(connection.experiment_id)
        connection.client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))
        (kept,) = (stack.buckets / "mlflow").rglob("report.html")
        assert kept.read_text() == "<p>0.7</p>"
        fetched = connection.client.download_artifacts(run.info.run_id, "report.html", str(folder))
        assert Path(fetched).read_text() == "<p>0.7</p>"

        command = [
            TOOLS / "raregrade",
            "models",
            "--params",
            ROOT / "params.yaml",
            "--set",
            f"tracking.uri={stack.mlflow}",
        ]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert listed.stdout.startswith("no model is registered"), listed.stderr

        with urllib.request.urlopen(f"{stack.dashboard}/api/studies", timeout=30) as answer:
            assert json.loads(answer.read())["study_summaries"] == []


def check_health(test: list[str], mlflow: str, dashboard: str, postgres: int) -> None:
    """Run a service's health check; the ports are those of this machine."""
    assert test[0] == "CMD"
    local = {"http://127.0.0.1:5000": mlflow, "http://127.0.0.1:8080": dashboard}
    words = test[1:]
    for there, here in local.items():
        words = [word.replace(there, here) for word in words]
    environment = {
        "PATH": os.pathsep.join([str(TOOLS), str(postgres_binary("psql").parent), "/usr/bin:/bin"]),
        "PGPORT": str(postgres),
    }
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 0, words
    wrong = [word.replace(mlflow, "http://127.0.0.1:9").replace(dashboard, "http://127.0.0.1:9") for word in words]
    broken = subprocess.run(wrong, env=environment | {"PGPORT": "9"}, capture_output=True, check=False)
    assert broken.returncode != 0, f"{words} cannot fail"
