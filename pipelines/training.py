"""The training task of every pipeline: in the pipeline's own pod, or over the nodes that the environment asks for."""

from __future__ import annotations

import json
from typing import Any

from kfp import dsl

from components.image import IMAGE
from components.train_distributed.component import train_distributed
from components.train_model.component import train_model
from pipelines.environments import Environment
from pipelines.resources import place, place_waiting


def training_task(environment: Environment | None, **inputs: Any) -> dsl.PipelineTask:
    """A task that trains with ``inputs``, which are those of ``train_model``, and has the output ``model``."""
    if environment is None or environment.distributed.nodes == 1:
        return place(train_model(**inputs), "train", environment)
    from pipelines.trainjob import train_job

    job = train_job(environment, image=IMAGE, nodes=environment.distributed.nodes)
    assert environment.checkpoints is not None  # which the environment checks where there are several nodes
    task = train_distributed(job=json.dumps(job, sort_keys=True), shared=environment.checkpoints, **inputs)
    return place_waiting(task, environment)
