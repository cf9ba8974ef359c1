"""The pipeline ``compare_losses``: fetch, prepare, train and evaluate each loss and seed, compare, register.

Only artifacts and pipeline parameters cross into the loop: kfp.local replaces a parameter output of a
task outside the loop by the loop item, without a word. The gate is applied by the step ``register``.
"""

from typing import Any

from kfp import dsl

from raregrade.config import Params
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.pipelines.tasks import (
    RawData,
    Tasks,
    compare_argument,
    data_arguments,
    log_arguments,
    loop_items,
    sections,
)


def build(environment: Environment | None) -> Any:
    """The pipeline for the tasks of ``environment``, or for no cluster in particular where that is None."""

    @dsl.pipeline(
        name="compare-losses",
        description="Train one backbone with each loss and seed, compare them, register the winner "
        "if it passes the gate.",
    )
    def compare_losses(  # noqa: PLR0917 - kfp calls it by position
        runs: list[dict],
        prepare: dict,
        evaluate: dict,
        compare: dict,
        register: dict,
        raw_data: str,
        data_repo: str = "",
        data_revision: str = "",
        store: str = "",
        tracking_uri: str = "none",
        experiment: str = "raregrade",
    ) -> None:
        """See ``arguments`` for what each argument holds."""
        tasks = Tasks("compare_losses", environment, tracking_uri, experiment)
        with tasks.exit_handler():
            dataset = tasks.dataset(RawData(raw_data, data_repo, data_revision, store), prepare)
            with dsl.ParallelFor(items=runs, name="losses-and-seeds") as run:
                model, report = tasks.train_and_evaluate(run, evaluate, dataset)
            tasks.compare_and_register(compare, register, dataset, reports=report, models=model)

    return compare_losses


def arguments(
    params: Params, *, raw_data: str, data_revision: str | None = None, store: str = "", data_repo: str = ""
) -> dict[str, Any]:
    """Every argument of ``compare_losses``: losses × seeds of ``compare``."""
    return {
        "runs": loop_items(params),
        **sections(params, "prepare", "evaluate"),
        "compare": compare_argument(params),
        **sections(params, "register"),
        **data_arguments(raw_data, data_repo, data_revision, store),
        **log_arguments(params),
    }
