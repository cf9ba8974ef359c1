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
from raregrade.kubeflow.components.compare_models.component import compare_models
from raregrade.kubeflow.components.evaluate_champion.component import evaluate_champion
from raregrade.kubeflow.components.promote_model.component import promote_model
from raregrade.kubeflow.components.read_champion.component import read_champion
from raregrade.kubeflow.components.register_model.component import register_model
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.pipelines.tasks import (
    Log,
    RawData,
    compare_argument,
    data_arguments,
    dataset_of,
    exit_task,
    log_arguments,
    sections,
    trained_and_evaluated,
)
from raregrade.kubeflow.resources import place
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
        log = Log(tracking_uri, experiment)
        with dsl.ExitHandler(exit_task("retrain_and_promote", log, environment), name="pipeline"):
            champion = read_champion(
                default=default, compare=compare, register=register, store=store, **log.arguments()
            )
            champion.set_caching_options(False)
            place(champion, "light", environment)
            dataset = dataset_of(
                RawData(raw_data, data_repo, data_revision, store),
                prepare,
                log,
                environment,
                previous=champion.outputs["previous"],
            )
            judged = evaluate_champion(
                section=evaluate, champion_model=champion.outputs["champion_model"], dataset=dataset, **log.arguments()
            )
            place(judged, "evaluate", environment)
            # The items of the loop are an output of a task: nothing else of it may enter the loop (see `tasks`).
            with dsl.ParallelFor(items=champion.outputs["Output"], name="seeds") as run:
                model, report = trained_and_evaluated(run, evaluate, dataset, log, environment)
            compared = compare_models(
                section=champion.outputs["comparison"],
                reports=dsl.Collected(report),
                reference=judged.outputs["report"],
                **log.arguments(),
            )
            place(compared, "light", environment)
            registered = register_model(
                section=register,
                comparison=compared.outputs["comparison"],
                models=dsl.Collected(model),
                dataset=dataset,
                **log.arguments(),
            )
            registered.set_caching_options(False)
            place(registered, "evaluate", environment)
            promoted = promote_model(
                section=register,
                registration=registered.outputs["registration"],
                dataset=dataset,
                **log.arguments(),
            )
            promoted.set_caching_options(False)
            place(promoted, "evaluate", environment)

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
