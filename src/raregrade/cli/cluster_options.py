"""Options that the commands of ``raregrade pipeline`` share, and what they become."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raregrade.errors import UserError

if TYPE_CHECKING:
    from raregrade.kubeflow.environments import Environment
    from raregrade.kubeflow.host import Host

DEFAULT_TIMEOUT = 30.0
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help="Such as compare_losses.")]
ImageOption = Annotated[str | None, typer.Option("--image", metavar="REF", help="The image that the tasks run in.")]
DataRepoOption = Annotated[
    str | None,
    typer.Option(
        "--data-repo",
        metavar="REPO",
        help="A git repository with DVC, URL or folder: data.path is a path in it, fetched into --store.",
    ),
]
DataRevisionOption = Annotated[
    str | None,
    typer.Option(
        "--data-revision",
        help="With --data-repo a commit, tag or branch; else a name of the content of the raw images, by default "
        "their DVC md5. Finished tasks are reused for it.",
    ),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option("--env", metavar="ENV", help="The cluster: configs/environments/ENV.yaml, or a file's path."),
]
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


def require_kfp() -> None:
    """Raise UserError where the packages of the pipelines are not installed."""
    if importlib.util.find_spec("kfp") is None:
        raise UserError("the pipelines need kfp, which is not installed: `pip install 'raregrade[pipelines]'`.")


def read_environment(name: str | None) -> Environment | None:
    """The environment that ``--env`` names, None where it is not given. Raises UserError where it is wrong."""
    require_kfp()
    from raregrade.kubeflow.environments import load_environment

    return None if name is None else load_environment(name)


def find_host(
    env: str | None, host: str | None, namespace: str | None, token_file: Path | None, timeout: float
) -> Host:
    """The host that the options name: what is given, else what the environment says, else the pod's own cluster."""
    environment = read_environment(env)
    from raregrade.kubeflow.host import Host, find_namespace, find_token_file, find_url

    return Host(
        find_url(host or (environment.host if environment else None)),
        namespace=find_namespace(namespace or (environment.namespace if environment else None)),
        token_file=find_token_file(token_file),
        ui=None if host or environment is None else environment.ui,
        timeout=timeout,
    )
