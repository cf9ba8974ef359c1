"""``raregrade pipeline``: compile and run the Kubeflow pipelines here; ``cluster`` and ``runs`` talk to a host."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raregrade.cli import cluster, runs, trainjob
from raregrade.cli.cluster_options import (
    DataRepoOption,
    DataRevisionOption,
    EnvironmentOption,
    ImageOption,
    PipelineArgument,
    read_environment,
    require_kfp,
)
from raregrade.cli.commands import add_commands, new_group
from raregrade.cli.options import ParamsOptions
from raregrade.cli.results import print_results
from raregrade.errors import UserError

if TYPE_CHECKING:
    from raregrade.config import Params

WORKPLACE = Path(".raregrade")

app = new_group(
    "Compile, run, submit and schedule the Kubeflow pipelines.",
    """
    raregrade pipeline run compare_losses
    raregrade pipeline submit compare_losses --env dev
    """,
    invoke_without_command=True,
)


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


class Runner(StrEnum):
    SUBPROCESS = "subprocess"
    DOCKER = "docker"


def compile_(
    *,
    name: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="Default: all of them.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE|FOLDER", help="Where to write. Default, in a checkout: its pipelines/."),
    ] = None,
    image: ImageOption = None,
    env: EnvironmentOption = None,
) -> None:
    """Write a pipeline as YAML for Kubeflow Pipelines.

    Any host takes it; with --env it is for one cluster.

    Example:
        raregrade pipeline compile --out compiled/
        raregrade pipeline compile compare_losses --env dev --out c.yaml
    """
    into_folder = out is not None and (out.is_dir() or not out.suffix)
    if out is not None and not into_folder:
        if name is None:
            raise UserError("--out is one file: name the pipeline as well, or give a folder.")
        if out.suffix not in (".yaml", ".yml"):
            raise UserError(f"--out {out}: a compiled pipeline is a .yaml file. Name one, or a folder.")
    environment = read_environment(env)
    if environment is not None and out is None:
        raise UserError("the file beside the pipeline belongs to no cluster: with --env, give the pipeline and --out.")
    from raregrade.kubeflow.compile import NAMES, committed_yaml, compile_pipeline, load_pipeline
    from raregrade.kubeflow.images import DEFAULT_IMAGE, VARIABLE, choose_image

    chosen = choose_image(environment, image)
    for pipeline in NAMES if name is None else [name]:
        load_pipeline(pipeline)  # an unknown name is refused before anything is written
    if out is None:
        _check_in_checkout()
        if chosen != DEFAULT_IMAGE:
            raise UserError(
                f"the file beside the pipeline names the image {DEFAULT_IMAGE}, not {chosen}. "
                f"Give --out for one that names another, or unset {VARIABLE}."
            )
    for pipeline in NAMES if name is None else [name]:
        committed = committed_yaml(pipeline)
        target = committed if out is None else out / committed.name if into_folder else out
        compile_pipeline(pipeline, target, environment, chosen)
        print(f"{target}: {pipeline}, image {chosen}{'' if env is None else f', environment {env}'}")


def _check_in_checkout() -> None:
    """Without --out the files in the repository are written anew, which is for those who work in it."""
    from raregrade.kubeflow.environments import checkout

    root = checkout()
    if root is None or not Path.cwd().is_relative_to(root):
        raise UserError("where to? Give --out with a .yaml file, or with a folder such as --out pipelines/.")


def run(
    *,
    name: PipelineArgument,
    runner: Annotated[
        Runner,
        typer.Option(
            "--runner",
            metavar="RUNNER",
            help="subprocess: each task in its own process. docker: in its own container, by Docker or podman.",
        ),
    ] = Runner.SUBPROCESS,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FOLDER", help="For outputs. Default: in .raregrade/pipelines."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", metavar="FOLDER", help="For prepared images, shared between runs. Default: one for each run."
        ),
    ] = None,
    data_repo: DataRepoOption = None,
    data_revision: DataRevisionOption = None,
    image: ImageOption = None,
    options: ParamsOptions,
) -> None:
    """Run a pipeline here, without a cluster.

    Example:
        raregrade pipeline run compare_losses
        raregrade pipeline run compare_losses --runner docker
    """
    if image is not None and runner is not Runner.DOCKER:
        raise UserError("--image is what containers run in: add --runner docker.")
    config = options.read()
    require_kfp()
    from raregrade.kubeflow.compile import arguments_of, load_pipeline
    from raregrade.kubeflow.images import choose_image

    image = choose_image(None, image)
    pipeline = load_pipeline(name, image=image)
    if data_repo is not None and store is None:
        store = WORKPLACE / "store"
    arguments = arguments_of(
        name,
        config,
        raw_data=str(_raw_data_here(config)) if data_repo is None else config.data.path,
        data_repo=_repo_here(data_repo),
        data_revision=data_revision,
        store="" if store is None else str(store.resolve()),
    )
    stdout = sys.stdout  # kfp.local replaces sys.stdout and print while it runs

    def report(line: str) -> None:
        stdout.write(f"{line}\n")
        stdout.flush()

    where: dict[str, Any] = {
        "root": root or WORKPLACE / "pipelines" / name,
        "group": f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
        "checkpoints": WORKPLACE / "checkpoints",
        "report": report,
    }
    if runner is Runner.DOCKER:
        from raregrade.kubeflow.local_docker import run_in_containers

        result = run_in_containers(pipeline, arguments, image=image, **where)
    else:
        from raregrade.kubeflow.local_subprocess import run_in_subprocesses

        result = run_in_subprocesses(pipeline, arguments, **where)
    print_results(result.outputs, result.folder)


def _raw_data_here(config: Params) -> Path:
    path = Path(config.data.path)
    if path.exists():
        return path.resolve()
    advice = f"Run `raregrade phantom --out {path}` first." if config.data.source == "phantom" else "Set data.path."
    raise UserError(f"data.path: there is nothing at {path}. {advice}")


def _repo_here(repo: str | None) -> str:
    """A folder by its absolute path, since tasks may run elsewhere; a URL as it is."""
    return str(Path(repo).resolve()) if repo and Path(repo).is_dir() else repo or ""


_HERE: dict[str, Callable[..., None]] = {"compile": compile_, "run": run}
add_commands(app, _HERE | cluster.COMMANDS | runs.COMMANDS | trainjob.COMMANDS)
