"""Groups of tasks that several pipelines have in common, placed for an environment.

What a task does is its component's business, what it is given on a cluster ``resources``', what a pipeline
is for its own module's. Called while a pipeline is being built.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl

from raregrade.config import CompareSection, Params, section
from raregrade.config.tuning import untuned_name
from raregrade.kubeflow.components.evaluate_model.component import evaluate_model
from raregrade.kubeflow.components.fetch_data.component import fetch_data
from raregrade.kubeflow.components.notify_exit.component import notify_exit
from raregrade.kubeflow.components.prepare_dataset.component import prepare_dataset
from raregrade.kubeflow.components.train_distributed.component import train_distributed
from raregrade.kubeflow.components.train_model.component import train_model
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.resources import place, place_waiting
from raregrade.kubeflow.task_io import section_to_argument
from raregrade.tracking import dvc_md5


class Log(NamedTuple):
    """Where the tasks of a pipeline log: the two pipeline parameters, handed on together."""

    tracking_uri: Any
    experiment: Any

    def arguments(self) -> dict[str, Any]:
        """As every component takes them."""
        return {"tracking_uri": self.tracking_uri, "experiment": self.experiment}


class RawData(NamedTuple):
    """Where a pipeline finds its raw data: the pipeline parameters of these names, handed on together."""

    raw_data: Any
    data_repo: Any
    data_revision: Any
    store: Any


def exit_task(pipeline: str, log: Log, environment: Environment | None) -> dsl.PipelineTask:
    """The task of a ``dsl.ExitHandler``, which says how the run of ``pipeline`` ended."""
    task = notify_exit(pipeline=pipeline, **log.arguments())
    task.set_caching_options(False)
    return place(task, "light", environment)


def dataset_of(raw: RawData, prepare: Any, log: Log, environment: Environment | None, *, previous: Any = "") -> Any:
    """Fetch and prepare the raw data; the Dataset artifact.

    Fetching is never taken from the cache: a branch is another revision tomorrow. It costs nothing where the store
    has the data, and what it hands on, path and md5, decides whether preparing is.
    """
    fetched = fetch_data(
        path=raw.raw_data, repo=raw.data_repo, revision=raw.data_revision, store=raw.store, **log.arguments()
    )
    fetched.set_caching_options(False)
    place(fetched, "data", environment)
    prepared = prepare_dataset(
        section=prepare,
        raw_data=fetched.outputs["path"],
        data_revision=fetched.outputs["revision"],
        store=raw.store,
        previous=previous,
        **log.arguments(),
    )
    return place(prepared, "data", environment).outputs["dataset"]


def trained_and_evaluated(
    run: Any, evaluate: Any, dataset: Any, log: Log, environment: Environment | None, *, tuned: Any = None
) -> tuple[Any, Any]:
    """Train what ``run`` says and judge it; the artifacts of model and report. For the inside of a loop."""
    extra = {} if tuned is None else {"tuned": tuned}
    trained = training_task(environment, run=run, dataset=dataset, **extra, **log.arguments())
    evaluated = evaluate_model(section=evaluate, model=trained.outputs["model"], dataset=dataset, **log.arguments())
    place(evaluated, "evaluate", environment)
    return trained.outputs["model"], evaluated.outputs["report"]


def training_task(environment: Environment | None, **inputs: Any) -> dsl.PipelineTask:
    """A task that trains with ``inputs``, those of ``train_model``: in its own pod, or over several nodes."""
    if environment is None or environment.distributed.nodes == 1:
        return place(train_model(**inputs), "train", environment)
    from raregrade.kubeflow.trainjob import train_job

    job = train_job(environment, image=environment.image, nodes=environment.distributed.nodes)
    assert environment.checkpoints is not None  # which the environment checks where there are several nodes
    task = train_distributed(job=json.dumps(job, sort_keys=True), shared=environment.checkpoints, **inputs)
    return place_waiting(task, environment)


def data_arguments(raw_data: str, data_repo: str, data_revision: str | None, store: str) -> dict[str, str]:
    """The arguments of ``RawData``.

    Without a repository the revision names the content of ``raw_data``, since Kubeflow reuses the output of a task
    whose arguments have not changed: by default the DVC md5, or, where DVC does not track the data, a value that never
    comes back. With one, an empty revision is the repository's default branch.
    """
    if not data_repo:
        data_revision = data_revision or dvc_md5(Path(raw_data)) or f"untracked-{uuid.uuid4().hex}"
    return {"raw_data": raw_data, "data_repo": data_repo, "data_revision": data_revision or "", "store": store}


def log_arguments(params: Params) -> dict[str, str]:
    """The arguments of ``Log``."""
    return {"tracking_uri": params.tracking.uri, "experiment": params.tracking.experiment}


def compare_argument(params: Params, losses: list[str] | None = None, baseline: str | None = None) -> dict[str, Any]:
    """The section ``compare`` for ``losses``, by default those that the parameters compare, without tuned ones."""
    config = params.compare.model_copy(
        update={
            "losses": losses or params.compare.losses,
            "baseline": baseline or untuned_name(params.compare.baseline),
        }
    )
    whole: CompareSection = section(params, "compare")
    return section_to_argument(whole.model_copy(update={"compare": config}))


def loop_items(params: Params) -> list[dict[str, Any]]:
    """One item per training run, losses × seeds of ``compare``: ``{loss, seed, section}``."""
    return [
        {"loss": loss, "seed": seed, "section": section_to_argument(section(params, "train", loss))}
        for loss in params.compare.losses
        for seed in params.compare.seeds
    ]


def sections(params: Params, *steps: str) -> dict[str, Any]:
    """One argument per step, named as the step: its section."""
    return {step: section_to_argument(section(params, step)) for step in steps}
