"""What the pipelines have in common: their tasks, while a pipeline is being built, and their arguments.

What a task does is its component's business, what it is given on a cluster ``resources``'.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl

from raregrade.config import CompareSection, Params, section
from raregrade.config.tuning import untuned_name
from raregrade.kubeflow.components.compare_models.component import compare_models
from raregrade.kubeflow.components.evaluate_model.component import evaluate_model
from raregrade.kubeflow.components.fetch_data.component import fetch_data
from raregrade.kubeflow.components.notify_exit.component import notify_exit
from raregrade.kubeflow.components.prepare_dataset.component import prepare_dataset
from raregrade.kubeflow.components.register_model.component import register_model
from raregrade.kubeflow.components.train_distributed.component import train_distributed
from raregrade.kubeflow.components.train_model.component import train_model
from raregrade.kubeflow.environments import Environment, Kind
from raregrade.kubeflow.resources import apply_environment, set_timeout_and_retries
from raregrade.kubeflow.task_io import section_to_argument
from raregrade.tracking import dvc_md5


class RawData(NamedTuple):
    """Where a pipeline finds its raw data: the pipeline parameters of these names, handed on together."""

    raw_data: Any
    data_repo: Any
    data_revision: Any
    store: Any


class Tasks:
    """The tasks of one pipeline: where they log, and what ``environment`` gives each of them.

    Args:
        pipeline: its name.
        environment: None belongs to no cluster in particular.
        tracking_uri: the pipeline parameter of this name.
        experiment: the pipeline parameter of this name.
    """

    def __init__(self, pipeline: str, environment: Environment | None, tracking_uri: Any, experiment: Any) -> None:
        self._pipeline = pipeline
        self._environment = environment
        self._log = {"tracking_uri": tracking_uri, "experiment": experiment}

    def add(self, component: Any, kind: Kind, *, cache: bool = True, **inputs: Any) -> dsl.PipelineTask:
        """A task of ``component`` with what tasks of ``kind`` get; without ``cache`` it runs every time."""
        task = component(**inputs, **self._log)
        if not cache:
            task.set_caching_options(False)
        return apply_environment(task, kind, self._environment)

    def exit_handler(self) -> dsl.ExitHandler:
        """What all other tasks stand in: at the end, also after a failure, a task says how the run went."""
        return dsl.ExitHandler(self.add(notify_exit, "light", cache=False, pipeline=self._pipeline), name="pipeline")

    def dataset(self, raw: RawData, prepare: Any, *, previous: Any = "") -> Any:
        """Fetch and prepare the raw data; the Dataset artifact.

        Fetching is never taken from the cache: a branch is another revision tomorrow. It costs nothing where the store
        has the data, and what it hands on, path and md5, decides whether preparing is.
        """
        fetched = self.add(
            fetch_data,
            "data",
            cache=False,
            path=raw.raw_data,
            repo=raw.data_repo,
            revision=raw.data_revision,
            store=raw.store,
        )
        prepared = self.add(
            prepare_dataset,
            "data",
            section=prepare,
            raw_data=fetched.outputs["path"],
            data_revision=fetched.outputs["revision"],
            store=raw.store,
            previous=previous,
        )
        return prepared.outputs["dataset"]

    def train_and_evaluate(self, run: Any, evaluate: Any, dataset: Any, **tuned: Any) -> tuple[Any, Any]:
        """Train what ``run`` says and evaluate it; the artifacts of model and report. For the inside of a loop."""
        model = self._train(run=run, dataset=dataset, **tuned).outputs["model"]
        evaluated = self.add(evaluate_model, "evaluate", section=evaluate, model=model, dataset=dataset)
        return model, evaluated.outputs["report"]

    def compare_and_register(
        self, compare: Any, register: Any, dataset: Any, *, reports: Any, models: Any, **reference: Any
    ) -> dsl.PipelineTask:
        """Compare what a loop made and register the winner, which the gate may refuse; the task that registers.

        Registering predicts the test images with the candidate and the champion, so it gets what evaluating gets.
        """
        compared = self.add(compare_models, "light", section=compare, reports=dsl.Collected(reports), **reference)
        return self.add(
            register_model,
            "evaluate",
            cache=False,
            section=register,
            comparison=compared.outputs["comparison"],
            models=dsl.Collected(models),
            dataset=dataset,
        )

    def _train(self, **inputs: Any) -> dsl.PipelineTask:
        """In the task's own pod, or over as many nodes as the environment asks for."""
        environment = self._environment
        if environment is None or environment.distributed.nodes == 1:
            return self.add(train_model, "train", **inputs)
        from raregrade.kubeflow.trainjob import train_job

        job = train_job(environment, image=environment.image, nodes=environment.distributed.nodes)
        assert environment.checkpoints is not None  # which the environment checks where there are several nodes
        task = self.add(
            train_distributed,
            "light",
            job=json.dumps(job, sort_keys=True),
            shared=environment.checkpoints,
            **inputs,
        )
        set_timeout_and_retries(task, environment.task("train"), environment)  # it waits as long as the training takes
        return task


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
    """Where the tasks log: the arguments ``tracking_uri`` and ``experiment``."""
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
