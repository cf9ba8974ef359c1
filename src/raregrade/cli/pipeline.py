"""``raregrade pipeline``: compile, run and submit the Kubeflow pipelines.

The pipelines are not part of the installed package. They lie in the folder ``pipelines`` of a checkout,
which is looked for from the working directory upwards; what they do is theirs. kfp is imported here
and nowhere else in the commands.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import time
import uuid
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from raregrade.cli.options import PARAMS, ParamsOption, SetOption, read_json, read_params
from raregrade.errors import UserError

IMAGE_VARIABLE = "RAREGRADE_IMAGE"
WORKPLACE = Path(".raregrade")

app = typer.Typer(
    help="Compile, run and submit the Kubeflow pipelines of this folder.", no_args_is_help=True, rich_markup_mode=None
)


class Runner(StrEnum):
    SUBPROCESS = "subprocess"


PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help="Such as compare_losses.")]
ImageOption = Annotated[str | None, typer.Option("--image", metavar="REF", help="The image that the tasks run in.")]


@app.command("compile")
def compile_(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="All pipelines where none is named.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; by default beside the pipeline.")
    ] = None,
    image: ImageOption = None,
) -> None:
    """Write a pipeline as YAML that any Kubeflow Pipelines host takes."""
    module = _pipelines("compile", image)
    if out is not None and name is None:
        raise UserError("--out is one file: name the pipeline as well.")
    if out is None and _image() != _default_image():
        raise UserError(
            f"the file beside the pipeline names the image {_default_image()}, not {_image()}. "
            f"Give --out for one that names another, or unset {IMAGE_VARIABLE}."
        )
    for pipeline in module.NAMES if name is None else [name]:
        module.load_pipeline(pipeline)  # an unknown name is refused before anything is written
        target = out or module.committed_yaml(pipeline)
        module.compile_pipeline(pipeline, target)
        print(f"{target}: {pipeline}, image {_image()}")


@app.command("run")
def run(
    *,
    name: PipelineArgument,
    runner: Annotated[
        Runner, typer.Option("--runner", help="subprocess: each task in a process of its own on this machine.")
    ] = Runner.SUBPROCESS,
    root: Annotated[
        Path | None, typer.Option("--root", help="The folder for outputs; by default .raregrade/pipelines/PIPELINE.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="A folder for the prepared images, shared between runs; else each run has its own."
        ),
    ] = None,
    params: ParamsOption = PARAMS,
    set_: SetOption = None,
) -> None:
    """Run a pipeline here, without a cluster."""
    del runner  # one so far
    config = read_params(params, set_)
    pipeline = _pipelines("compile").load_pipeline(name)
    raw_data = _raw_data_here(config)
    arguments = _pipelines("arguments").pipeline_arguments(
        config, raw_data=str(raw_data), store="" if store is None else str(store.resolve())
    )
    from raregrade.cli.printing import print_registration
    from raregrade.evaluation.table import format_summary

    stdout = sys.stdout  # kfp.local replaces sys.stdout and print while it runs

    def report(line: str) -> None:
        stdout.write(f"{line}\n")
        stdout.flush()

    result = _pipelines("local_run").run_in_subprocesses(
        pipeline,
        arguments,
        root=root or WORKPLACE / "pipelines" / name,
        group=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
        checkpoints=WORKPLACE / "checkpoints",
        report=report,
    )
    print(f"\n{format_summary(read_json(result.comparison / 'comparison.json', 'The run is incomplete.'))}")
    print_registration(read_json(result.registration / "registered.json", "The run is incomplete."))
    print(f"report: {_shown(result.comparison / 'comparison.html')}")
    print(f"outputs and logs of all tasks: {_shown(result.folder)}")


@app.command("submit")
def submit(
    *,
    name: PipelineArgument,
    host: Annotated[str, typer.Option("--host", metavar="URL", help="The Kubeflow Pipelines API.")],
    namespace: Annotated[str | None, typer.Option("--namespace", help="Yours, where the host has many users.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="A file that holds a service account's token.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Of Kubeflow; by default tracking.experiment.")
    ] = None,
    raw_data: Annotated[
        str | None, typer.Option("--raw-data", help="Where the tasks find the raw images; by default data.path.")
    ] = None,
    data_revision: Annotated[
        str | None,
        typer.Option(
            "--data-revision",
            help="Names the content of the raw images; by default their DVC md5. Finished tasks are reused for it.",
        ),
    ] = None,
    store: Annotated[
        str, typer.Option("--store", help="Where the tasks keep the prepared images, such as a mounted volume.")
    ] = "",
    image: ImageOption = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse what earlier runs have finished.")] = True,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the run has ended, with 1 where it failed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything but the host, and send nothing.")
    ] = False,
    params: ParamsOption = PARAMS,
    set_: SetOption = None,
) -> None:
    """Send a pipeline to a Kubeflow Pipelines host."""
    config = read_params(params, set_)
    compiling = _pipelines("compile", image)
    compiling.load_pipeline(name)
    sending = _pipelines("submit")
    target = sending.Host(host, namespace, None if token_file is None else sending.read_token(token_file))
    arguments = _pipelines("arguments").pipeline_arguments(
        config, raw_data=raw_data or config.data.path, data_revision=data_revision, store=store
    )
    sending.check_offline(target, arguments)
    if _image().startswith("localhost/"):
        print(
            f"note: the cluster's nodes must hold the image {_image()} already; --image names another.", file=sys.stderr
        )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.yaml"
        compiling.compile_pipeline(name, package)
        if dry_run:
            print(f"would send {name} with {len(arguments['runs'])} trainings in image {_image()} to {host}")
            return
        submitted = sending.submit(
            target,
            package,
            arguments,
            run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            experiment=experiment or config.tracking.experiment,
            cache=cache,
        )
    print(submitted.page)
    if wait:
        sending.wait_for(target, submitted, report=lambda state: print(f"run {submitted.run_id}: {state}", flush=True))


def _pipelines(module: str, image: str | None = None) -> ModuleType:
    """The module ``pipelines.<module>`` of the enclosing checkout; ``image`` holds from the first import on.

    Raises:
        UserError: kfp is not installed, or no folder ``pipelines`` is found.
    """
    if importlib.util.find_spec("kfp") is None:
        raise UserError("the pipelines need kfp, which is not installed: `pip install 'raregrade[pipelines]'`.")
    root = _project_root(Path.cwd())
    if image:
        os.environ[IMAGE_VARIABLE] = image
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"pipelines.{module}")


def _project_root(start: Path) -> Path:
    """The nearest folder from ``start`` upwards that holds the pipelines."""
    for folder in (start, *start.parents):
        if (folder / "pipelines" / "compare_losses.py").is_file():
            return folder
    raise UserError(
        f"no folder `pipelines` in {start} or above it. The pipelines are not part of the installed package: "
        "run this in a checkout of raregrade, or in a copy of its folders `pipelines` and `components`."
    )


def _raw_data_here(config: Any) -> Path:
    path = Path(config.data.path)
    if path.exists():
        return path.resolve()
    advice = f"Run `raregrade phantom --out {path}` first." if config.data.source == "phantom" else "Set data.path."
    raise UserError(f"data.path: there is nothing at {path}. {advice}")


def _image() -> str:
    return str(importlib.import_module("components.image").IMAGE)


def _default_image() -> str:
    return str(importlib.import_module("components.image").DEFAULT_IMAGE)


def _shown(path: Path) -> Path:
    """``path`` as a person would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
