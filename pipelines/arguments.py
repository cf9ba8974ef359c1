"""The arguments of the pipelines, made from params.yaml: each task gets the section of its step and nothing else."""

from __future__ import annotations

import importlib
from typing import Any

from raregrade.config import Params, section
from raregrade.steps.kubeflow import to_wire


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
        name: a pipeline, as ``pipelines.compile`` knows it.
        params: validated parameters.
        raw_data: where the tasks find the raw images, in place of ``data.path``; a path in ``data_repo`` where given.
        data_revision: of the repository; without one, what names the content of ``raw_data``.
        store: folder for the prepared images, shared between runs; empty keeps them in the artifact.
        data_repo: a DVC repository that holds the raw images; empty reads them where they lie.
    """
    made: dict[str, Any] = importlib.import_module(f"pipelines.{name}").arguments(
        params, raw_data=raw_data, data_revision=data_revision, store=store, data_repo=data_repo
    )
    return made


def loop_items(params: Params) -> list[dict[str, Any]]:
    """One item a training run, losses × seeds of ``compare``: ``{loss, seed, section}``, the section as JSON values."""
    return [
        {"loss": loss, "seed": seed, "section": to_wire(section(params, "train", loss))}
        for loss in params.compare.losses
        for seed in params.compare.seeds
    ]
