"""Containers of the manifests and of the compose file, started as plain processes of this machine.

What is run is the command and the environment that the files hold, and nothing of this process's environment; only
addresses, ports and folders are exchanged for those of this machine (``_localised``).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.infra.manifests import KUBERNETES, Document
from tests.servers import TOOLS, Postgres, answers, free_port, listens, postgres_binary, postgres_server, process

CREATE_DATABASES = KUBERNETES / "components" / "postgres" / "create-databases.sh"


@dataclass(frozen=True)
class Container:
    """The command line of a container, with entrypoint, and its environment."""

    words: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Stack:
    """The services of one file, running: the addresses of three of them, the database of all, and what was started."""

    mlflow: str
    dashboard: str
    store: str
    buckets: Path
    postgres: Postgres
    containers: Mapping[str, Container]


def compose_container(service: Document) -> Container:
    """Of a service in the output of ``podman-compose config``."""
    words = [*service.get("entrypoint", []), *service.get("command", [])]
    return Container([str(word) for word in words], {k: str(v) for k, v in service.get("environment", {}).items()})


def kubernetes_container(
    container: Document, settings: Mapping[str, Document], secrets: Mapping[str, Document]
) -> Container:
    """Of a container in a manifest, with ``$(NAME)`` replaced as the kubelet does.

    Args:
        settings: the data of each ConfigMap by its name.
        secrets: the same of each Secret.
    """
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= settings[source["configMapRef"]["name"]]
    for item in container.get("env", []):
        if "valueFrom" in item:
            reference = item["valueFrom"]["secretKeyRef"]
            environment[item["name"]] = secrets[reference["name"]][reference["key"]]
        else:
            environment[item["name"]] = _expanded(item["value"], environment)
    words = [*container.get("command", []), *container.get("args", [])]
    return Container([_expanded(word, environment) for word in words], environment)


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes leaves a reference to what it does not know as it is."""
    return re.sub(r"\$\(([A-Z0-9_]+)\)", lambda match: environment.get(match[1], match[0]), text)


@contextmanager
def running(containers: Mapping[str, Container], folder: Path, auth: Path) -> Iterator[Stack]:
    """Start Postgres, the S3 server, MLflow and the dashboard, when ``buckets`` and ``optuna-tables`` have ended.

    Args:
        folder: an empty one, for their files.
        auth: the file that MLflow finds at /etc/mlflow/basic_auth.ini.
    """
    ports = {name: free_port() for name in ("s3", "mlflow", "optuna-dashboard")}
    buckets = folder / "data"
    (folder / "tmp").mkdir()
    with ExitStack() as stack:
        postgres = stack.enter_context(_postgres(containers["postgres"]))
        exchange = {
            "/data": str(buckets),
            "/etc/mlflow/basic_auth.ini": str(auth),
            "/tmp": str(folder / "tmp"),
            "0.0.0.0": "127.0.0.1",
            "=:9000": f"=127.0.0.1:{ports['s3']}",
            "=5000": f"={ports['mlflow']}",
            "=8080": f"={ports['optuna-dashboard']}",
            "10001:10001": f"{os.geteuid()}:{os.getegid()}",
        }
        own = {"PGHOST": postgres.host, "PGPORT": str(postgres.port)}
        own["MLFLOW_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{ports['s3']}"
        local = {name: localised(container, exchange, own) for name, container in containers.items()}
        for name in ("buckets", "optuna-tables"):
            ended = subprocess.run(
                local[name].words, env=local[name].environment, capture_output=True, text=True, check=False, timeout=240
            )
            assert ended.returncode == 0, f"{local[name].words}: {ended.stderr}"
        ready = {
            "s3": listens(ports["s3"]),
            "mlflow": answers(f"http://127.0.0.1:{ports['mlflow']}/health"),
            "optuna-dashboard": answers(f"http://127.0.0.1:{ports['optuna-dashboard']}/dashboard/"),
        }
        for name, is_ready in ready.items():
            stack.enter_context(
                process(
                    local[name].words,
                    ready=is_ready,
                    log=folder / f"{name}.log",
                    environment=local[name].environment,
                    folder=folder / "tmp",
                )
            )
        yield Stack(
            mlflow=f"http://127.0.0.1:{ports['mlflow']}",
            dashboard=f"http://127.0.0.1:{ports['optuna-dashboard']}",
            store=f"http://127.0.0.1:{ports['s3']}",
            buckets=buckets,
            postgres=postgres,
            containers=containers,
        )


def localised(container: Container, exchange: Mapping[str, str], own: Mapping[str, str]) -> Container:
    """``container`` with its texts exchanged, its program taken from this environment, and PATH to find others by.

    Args:
        own: values of variables that differ on this machine; only those are set that the container has.
    """

    there = re.compile(rf"({'|'.join(map(re.escape, exchange))})\b")

    def local(text: str) -> str:
        return there.sub(lambda match: exchange[match[1]], text)

    words = [local(word) for word in container.words]
    words[0] = str(TOOLS / words[0]) if (TOOLS / words[0]).exists() else words[0]
    environment = {key: own.get(key, local(value)) for key, value in container.environment.items()}
    environment["PATH"] = os.pathsep.join([str(TOOLS), "/usr/local/bin:/usr/bin:/bin"])
    return replace(container, words=words, environment=environment)


@contextmanager
def _postgres(container: Container) -> Iterator[Postgres]:
    """Postgres as its image starts it on an empty volume: made, then handed to the script that makes the databases."""
    assert container.words[0] == "postgres"
    given = container.environment
    with postgres_server(
        settings=container.words[1:],
        initdb_options=given["POSTGRES_INITDB_ARGS"].split(),
        password=given["POSTGRES_PASSWORD"],
    ) as postgres:
        create_databases(postgres, given)
        yield postgres


def create_databases(postgres: Postgres, environment: Mapping[str, str], user: str | None = None) -> None:
    """Run the script that makes MLflow's and Optuna's databases, as ``user`` or as the superuser."""
    connection = {"PGHOST": postgres.host, "PGPORT": str(postgres.port), "PGUSER": user or postgres.user}
    connection |= {"PGPASSWORD": postgres.password, "PATH": f"{postgres_binary('psql').parent}:/usr/bin:/bin"}
    result = subprocess.run(
        [CREATE_DATABASES], env=dict(environment) | connection, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
