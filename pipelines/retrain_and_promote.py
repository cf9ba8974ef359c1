"""The pipeline ``retrain_and_promote``, made to be scheduled: new data, the champion's recipe, the gate, promotion.

Patients that the champion knows keep their split, so its test patients stay test patients. What is trained is read
from the registry when the run starts, not when it is scheduled; while there is no champion, it is the baseline of the
comparison. The champion is judged on the new data beside its successor, and the gate decides between the two, once to
register and once more to promote. Without new data and with the same champion, training comes from the cache and
nothing changes.
"""

from typing import Any

from kfp import dsl

from raregrade.config import Params, section
from raregrade.config.tuning import untuned_name
from raregrade.kubeflow.components.evaluate_champion.component import evaluate_champion
from raregrade.kubeflow.components.promote_model.component import promote_model
from raregrade.kubeflow.components.read_champion.component import read_champion
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
        name="retrain-and-promote",
        description="Train the champion's recipe on new data, and put the result in its place if it passes the gate.",
    )
    def retrain_and_promote(  # noqa: PLR0917 - kfp calls it by position
        default: dict,
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
        tasks = Tasks("retrain_and_promote", environment, tracking_uri, experiment)
        with tasks.exit_handler():
            champion = tasks.add(
                read_champion,
                "light",
                cache=False,
                default=default,
                compare=compare,
                register=register,
                store=store,
            ).outputs
            dataset = tasks.dataset(
                RawData(raw_data, data_repo, data_revision, store), prepare, previous=champion["previous"]
            )
            evaluated = tasks.add(
                evaluate_champion,
                "evaluate",
                section=evaluate,
                champion_model=champion["champion_model"],
                dataset=dataset,
            )
            # The items of the loop are an output of a task: nothing else of it may enter the loop (see `tasks`).
            with dsl.ParallelFor(items=champion["Output"], name="seeds") as run:
                model, report = tasks.train_and_evaluate(run, evaluate, dataset)
            registered = tasks.compare_and_register(
                champion["comparison"],
                register,
                dataset,
                reports=report,
                models=model,
                reference=evaluated.outputs["report"],
            )
            tasks.add(
                promote_model,
                "evaluate",
                cache=False,
                section=register,
                registration=registered.outputs["registration"],
                dataset=dataset,
            )

    return retrain_and_promote


def arguments(
    params: Params, *, raw_data: str, data_revision: str | None = None, store: str = "", data_repo: str = ""
) -> dict[str, Any]:
    """Every argument of ``retrain_and_promote``. A schedule leaves ``data_revision`` a branch, read anew each time."""
    return {
        "default": section_to_argument(section(params, "train", untuned_name(params.compare.baseline))),
        **sections(params, "prepare", "evaluate"),
        "compare": compare_argument(params),
        **sections(params, "register"),
        **data_arguments(raw_data, data_repo, data_revision, store),
        **log_arguments(params),
    }
