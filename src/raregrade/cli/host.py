"""Options that name a Kubeflow Pipelines host, and the host that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from raregrade.cli.checkout import pipelines_module, read_environment

DEFAULT_TIMEOUT = 30.0
HostOption = Annotated[
    str | None,
    typer.Option("--host", metavar="URL", help="The Kubeflow Pipelines API; inside a cluster its own by default."),
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", help="Yours, where the host has many users; inside a cluster the pod's.")
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file that holds a service account's token; inside a cluster the pod's."),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long the host may take over an answer.")
]


def host_of(env: str | None, host: str | None, namespace: str | None, token_file: Path | None, timeout: float) -> Any:
    """The host that the options name: what is given, else what the environment says, else the pod's own cluster."""
    environment = read_environment(env)
    hosts = pipelines_module("host")
    return hosts.Host(
        hosts.find_url(host or getattr(environment, "host", None)),
        namespace=hosts.find_namespace(namespace or getattr(environment, "namespace", None)),
        token_file=hosts.find_token_file(token_file),
        ui=None if host else getattr(environment, "ui", None),
        timeout=timeout,
    )


def pods_of(target: Any, run_id: str) -> Any:
    """The pods of run ``run_id``; none where this machine has no account on the cluster."""
    pods = pipelines_module("pods")
    return pods.pods_of(pods.open_cluster(), run_id, target.namespace or "kubeflow")
