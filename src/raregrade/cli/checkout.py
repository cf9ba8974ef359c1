"""Finding the folder ``pipelines`` of a checkout, which is not part of the installed package, and importing from it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from raregrade.errors import UserError

IMAGE_VARIABLE = "RAREGRADE_IMAGE"

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


def pipelines_module(module: str, image: str | None = None) -> ModuleType:
    """The module ``pipelines.<module>`` of the enclosing checkout; ``image`` holds from the first import on.

    Raises:
        UserError: kfp is not installed, or no folder ``pipelines`` is found.
    """
    if importlib.util.find_spec("kfp") is None:
        raise UserError("the pipelines need kfp, which is not installed: `pip install 'raregrade[pipelines]'`.")
    root = project_root(Path.cwd())
    if image:
        os.environ[IMAGE_VARIABLE] = image
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"pipelines.{module}")


def project_root(start: Path) -> Path:
    """The nearest folder from ``start`` upwards that holds the pipelines. Raises UserError where there is none."""
    for folder in (start, *start.parents):
        if (folder / "pipelines" / "compare_losses.py").is_file():
            return folder
    raise UserError(
        f"no folder `pipelines` in {start} or above it. The pipelines are not part of the installed package: "
        "run this in a checkout of raregrade, or in a copy of its folders `pipelines` and `components`."
    )


def task_image() -> str:
    """The image that the components were imported with."""
    return str(importlib.import_module("components.image").IMAGE)


def default_image() -> str:
    """The image that the compiled files in the repository name."""
    return str(importlib.import_module("components.image").DEFAULT_IMAGE)


def read_environment(name: str | None) -> Any:
    """The environment that ``--env`` names, None where it is not given. Raises UserError where it is wrong."""
    return None if name is None else pipelines_module("environments").load_environment(name)


def chosen_image(environment: Any, asked: str | None) -> str | None:
    """The image of the tasks: ``asked``, or that of the environment; None leaves the default.

    Raises:
        UserError: for an environment, the image has no tag, or one that moves.
    """
    if environment is None:
        return asked
    chosen: str = pipelines_module("environments").image_of(
        environment, asked or os.environ.get(IMAGE_VARIABLE) or None
    )
    return chosen
