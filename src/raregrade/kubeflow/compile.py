"""Which pipelines there are, how one becomes YAML, and its arguments from params.yaml."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from kfp import compiler

from raregrade.atomic import atomic_file
from raregrade.config import Params
from raregrade.errors import UserError
from raregrade.kubeflow import pipelines
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.images import IMAGE

NAMES = ("compare_losses", "cross_validate", "retrain_and_promote", "tune_loss")


def load_pipeline(name: str, environment: Environment | None = None, image: str = IMAGE) -> Any:
    """The pipeline ``name``, a ``kfp.dsl`` graph component, whose tasks run in ``image``, as ``environment`` says.

    Raises:
        UserError: an unknown name.
    """
    if environment is not None:
        environment = environment.model_copy(update={"image": image})
    pipeline = _module(name).build(environment)
    for executor in pipeline.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["image"] = image
    return pipeline


def compile_pipeline(name: str, out: Path, environment: Environment | None = None, image: str = IMAGE) -> None:
    """Write pipeline ``name`` as YAML to ``out``: two documents, the pipeline and its Kubernetes settings."""
    pipeline = load_pipeline(name, environment, image)
    with atomic_file(out) as temporary:
        compiler.Compiler().compile(pipeline, str(temporary))


def committed_yaml(name: str) -> Path:
    """The compiled file beside the pipeline, which names the default image and belongs to no cluster."""
    return Path(pipelines.__path__[0]).resolve() / f"{name}.yaml"


def arguments_of(
    name: str,
    params: Params,
    *,
    raw_data: str,
    data_revision: str | None = None,
    store: str = "",
    data_repo: str = "",
) -> dict[str, Any]:
    """Every argument of the pipeline ``name``, as the function ``arguments`` of its module makes them.

    Args:
        name: a pipeline.
        params: validated parameters.
        raw_data: where the tasks find the raw images, in place of ``data.path``; a path in ``data_repo`` where given.
        data_revision: of the repository; without one, what names the content of ``raw_data``.
        store: folder for the prepared images, shared between runs; empty keeps them in the artifact.
        data_repo: a DVC repository that holds the raw images; empty reads them where they lie.

    Raises:
        UserError: an unknown name, or parameters that the pipeline does not take.
    """
    made: dict[str, Any] = _module(name).arguments(
        params, raw_data=raw_data, data_revision=data_revision, store=store, data_repo=data_repo
    )
    return made


def _module(name: str) -> Any:
    if name not in NAMES:
        raise UserError(f"unknown pipeline {name!r}; there is {', '.join(NAMES)}")
    return importlib.import_module(f"{pipelines.__name__}.{name}")
