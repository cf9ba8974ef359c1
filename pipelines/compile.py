"""Which pipelines there are, and how one becomes YAML."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from kfp import compiler

from pipelines.environments import Environment
from raregrade.atomic import atomic_file
from raregrade.errors import UserError

FOLDER = Path(__file__).resolve().parent
NAMES = ("compare_losses", "cross_validate", "retrain_and_promote", "tune_loss")


def load_pipeline(name: str, environment: Environment | None = None) -> Any:
    """The pipeline ``name``, a ``kfp.dsl`` graph component, with the task settings of ``environment``.

    Raises:
        UserError: an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"unknown pipeline {name!r}; there is {', '.join(NAMES)}")
    return importlib.import_module(f"pipelines.{name}").build(environment)


def compile_pipeline(name: str, out: Path, environment: Environment | None = None) -> None:
    """Write pipeline ``name`` as YAML to ``out``: two documents, the pipeline and its Kubernetes settings."""
    pipeline = load_pipeline(name, environment)
    with atomic_file(out) as temporary:
        compiler.Compiler().compile(pipeline, str(temporary))


def committed_yaml(name: str) -> Path:
    """The compiled file beside the pipeline, which names the default image and belongs to no cluster."""
    return FOLDER / f"{name}.yaml"
