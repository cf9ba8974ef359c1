"""The pipeline ``cross_validate``: train and evaluate each loss, seed and fold, and compare the losses over the folds.

Every image of training and validation is judged once by a model that did not train on it, so small datasets give
narrower intervals than one fixed split does. Nothing is registered: a fold's model has seen less than it could.
"""

from typing import Any

from kfp import dsl

from raregrade.config import Params, section
from raregrade.kubeflow.components.compare_folds.component import compare_folds
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.pipelines.tasks import (
    RawData,
    Tasks,
    compare_argument,
    data_arguments,
    log_arguments,
    sections,
)
from raregrade.kubeflow.task_io import section_to_argument


def build(environment: Environment | None) -> Any:
    """The pipeline for the tasks of ``environment``, or for no cluster in particular where that is None."""

    @dsl.pipeline(
        name="cross-validate", description="Train one backbone with each loss on each fold, and compare the losses."
    )
    def cross_validate(  # noqa: PLR0917 - kfp calls it by position
        runs: list[dict],
        prepare: dict,
        evaluate: dict,
        compare: dict,
        raw_data: str,
        data_repo: str = "",
        data_revision: str = "",
        store: str = "",
        tracking_uri: str = "none",
        experiment: str = "raregrade",
    ) -> None:
        """See ``arguments`` for what each argument holds."""
        tasks = Tasks("cross_validate", environment, tracking_uri, experiment)
        with tasks.exit_handler():
            dataset = tasks.dataset(RawData(raw_data, data_repo, data_revision, store), prepare)
            with dsl.ParallelFor(items=runs, name="losses-seeds-and-folds") as run:
                _, report = tasks.train_and_evaluate(run, evaluate, dataset)
            tasks.add(compare_folds, "light", section=compare, reports=dsl.Collected(report), dataset=dataset)

    return cross_validate


def arguments(
    params: Params, *, raw_data: str, data_revision: str | None = None, store: str = "", data_repo: str = ""
) -> dict[str, Any]:
    """Every argument of ``cross_validate``: losses × seeds of ``compare``, on the folds of ``data.split.folds``."""
    runs = [
        {"loss": loss, "seed": seed, "fold": fold, "section": section_to_argument(section(params, "train", loss))}
        for loss in params.compare.losses
        for seed in params.compare.seeds
        for fold in range(params.data.split.folds)
    ]
    return {
        "runs": runs,
        **sections(params, "prepare", "evaluate"),
        "compare": compare_argument(params),
        **data_arguments(raw_data, data_repo, data_revision, store),
        **log_arguments(params),
    }
