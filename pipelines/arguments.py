"""The arguments of the pipelines, made from params.yaml: each task gets the section of its step and nothing else.

Needs neither kfp nor torch.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from raregrade.config import Params, section
from raregrade.steps.kubeflow import to_wire
from raregrade.tracking import dvc_md5


def loop_items(params: Params) -> list[dict[str, Any]]:
    """One item a training run, losses × seeds of ``compare``: ``{loss, seed, section}``, the section as JSON values."""
    return [
        {"loss": loss, "seed": seed, "section": to_wire(section(params, "train", loss))}
        for loss in params.compare.losses
        for seed in params.compare.seeds
    ]


def pipeline_arguments(
    params: Params, *, raw_data: str, data_revision: str | None = None, store: str = ""
) -> dict[str, Any]:
    """Every argument of ``compare_losses``.

    Args:
        params: validated parameters.
        raw_data: where the tasks find the raw images, in place of ``data.path``.
        data_revision: what names the content of ``raw_data``. Kubeflow reuses the output of a task whose
            arguments have not changed, so this must change when the images do: by default the DVC md5
            of ``raw_data``, or, where DVC does not track it, a value that never comes back.
        store: folder for the prepared images, shared between runs; empty keeps them in the artifact.
    """
    return {
        "runs": loop_items(params),
        "prepare": to_wire(section(params, "prepare")),
        "evaluate": to_wire(section(params, "evaluate")),
        "compare": to_wire(section(params, "compare")),
        "register": to_wire(section(params, "register")),
        "raw_data": raw_data,
        "data_revision": data_revision or dvc_md5(Path(raw_data)) or f"untracked-{uuid.uuid4().hex}",
        "store": store,
        "tracking_uri": params.tracking.uri,
        "experiment": params.tracking.experiment,
    }
