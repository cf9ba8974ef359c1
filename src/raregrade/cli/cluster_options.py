"""Options that the commands of ``raregrade pipeline`` share, and what they become."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raregrade.errors import UserError

if TYPE_CHECKING:
    from raregrade.kubeflow.environments import Environment
    from raregrade.kubeflow.host import Host

_NAMES = "compare_losses, cross_validate, tune_loss or retrain_and_promote."
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help=_NAMES)]
EnvironmentOption = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME|FILE", help="The cluster: a file, or a name in configs/environments."),
]
ImageOption = Annotated[str | None, typer.Option("--image", metavar="REF", help="The image that the tasks run in.")]
DataRepoOption = Annotated[
    str | None,
    typer.Option(
        "--data-repo",
        metavar="URL|FOLDER",
        help="A git repository with DVC: data.path is a path in it, fetched into --store.",
    ),
]
DataRevisionOption = Annotated[
    str | None,
    typer.Option(
        "--data-revision",
        metavar="REV",
        help="With --data-repo a commit, tag or branch. Else what identifies the raw images: tasks that finished with "
        "the same are reused. Default: their DVC md5.",
    ),
]


@dataclass(frozen=True)
class HostOptions:
    """Which Kubeflow Pipelines host a command talks to."""

    env: EnvironmentOption = None
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="URL", help="Kubeflow Pipelines' API. Default: of --env, or in a pod its own."),
    ] = None
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", metavar="NAME", help="Yours, on a host with many users. Default: as for --host."),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Holds a service account's token. Default: the pod's."),
    ] = None
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long the host may take to answer.")
    ] = 30.0

    def find(self) -> Host:
        """The host: what is given, else what the environment says, else the pod's own cluster. Raises UserError."""
        environment = read_environment(self.env)
        from raregrade.kubeflow.host import Host, find_namespace, find_token_file, find_url

        return Host(
            find_url(self.host or (environment.host if environment else None)),
            namespace=find_namespace(self.namespace or (environment.namespace if environment else None)),
            token_file=find_token_file(self.token_file),
            ui=None if self.host or environment is None else environment.ui,
            timeout=self.timeout,
        )


@dataclass(frozen=True)
class RunOptions:
    """What a run on a cluster is given. What is left out comes from the environment, then from the parameters."""

    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Of Kubeflow. Default: tracking.experiment.")
    ] = None
    raw_data: Annotated[
        str | None,
        typer.Option("--raw-data", metavar="PATH", help="Where the tasks find the raw images. Default: data.path."),
    ] = None
    data_repo: DataRepoOption = None
    data_revision: DataRevisionOption = None
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="PATH", help="Where the tasks keep prepared images, such as a mounted volume."),
    ] = None
    image: ImageOption = None
    check_image: Annotated[
        bool, typer.Option("--check-image/--no-check-image", help="Ask the registry first whether it has the image.")
    ] = True

    def arguments(self, pipeline: str, params: Any, environment: Environment | None) -> dict[str, Any]:
        """The arguments of ``pipeline``. Raises UserError for an unknown pipeline, or what a cluster cannot reach."""
        from raregrade.kubeflow.compile import arguments_of
        from raregrade.kubeflow.submit import check_offline

        on_volume = environment.raw_data if environment and not self.data_repo else None
        store = self.store if self.store is not None or environment is None else environment.store
        arguments = arguments_of(
            pipeline,
            params,
            raw_data=self.raw_data or on_volume or params.data.path,
            data_repo=self.data_repo or "",
            data_revision=self.data_revision,
            store=store or "",
        )
        check_offline(arguments)
        return arguments


def require_kfp() -> None:
    """Raise UserError where the packages of the pipelines are not installed."""
    if importlib.util.find_spec("kfp") is None:
        raise UserError("the pipelines need kfp, which is not installed: `pip install 'raregrade[pipelines]'`.")


def read_environment(name: str | None) -> Environment | None:
    """The environment that ``--env`` names, None where it is not given. Raises UserError where it is wrong."""
    require_kfp()
    from raregrade.kubeflow.environments import load_environment

    return None if name is None else load_environment(name)


def tracking_of_environment(environment: Environment | None) -> list[str]:
    """The environment's MLflow server as a parameter, which ``--set`` goes over."""
    uri = environment.tracking_uri if environment else None
    return [f"tracking.uri={uri}"] if uri else []
