"""The pipeline ``compare_losses``: prepare, train and evaluate each loss and seed, compare, register.

Only artifacts and pipeline parameters cross into the loop: kfp.local replaces a parameter output of a
task outside the loop by the loop item, without a word. The gate is applied by the step ``register``.
"""

from typing import NamedTuple

from kfp import dsl, kubernetes

from components.compare_models.component import compare_models
from components.evaluate_model.component import evaluate_model
from components.prepare_dataset.component import prepare_dataset
from components.register_model.component import register_model
from components.train_model.component import train_model
from raregrade.steps.kubeflow import GROUP_VARIABLE


class Outputs(NamedTuple):
    """What a run hands over: the comparison folder and the folder of ``registered.json``."""

    comparison: dsl.Artifact
    registration: dsl.Artifact


def _in_group_of_the_run(task: dsl.PipelineTask) -> None:
    """Give the task the id of the pipeline run, which finds the parent of its MLflow run.

    As an input it would change with every run and no task would ever be taken from the cache.
    """
    kubernetes.use_field_path_as_env(task, GROUP_VARIABLE, "metadata.labels['pipeline/runid']")


@dsl.pipeline(
    name="compare-losses",
    description="Train one backbone with each loss and seed, compare them, register the winner if it passes the gate.",
)
def compare_losses(  # noqa: PLR0917 - kfp calls it by position
    runs: list[dict],
    prepare: dict,
    evaluate: dict,
    compare: dict,
    register: dict,
    raw_data: str,
    data_revision: str,
    store: str = "",
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> Outputs:
    """See ``pipelines.arguments.pipeline_arguments`` for what each argument holds."""
    prepared = prepare_dataset(
        section=prepare,
        raw_data=raw_data,
        data_revision=data_revision,
        store=store,
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    dataset = prepared.outputs["dataset"]
    with dsl.ParallelFor(items=runs, name="losses-and-seeds") as run:
        trained = train_model(run=run, dataset=dataset, tracking_uri=tracking_uri, experiment=experiment)
        evaluated = evaluate_model(
            section=evaluate,
            model=trained.outputs["model"],
            dataset=dataset,
            tracking_uri=tracking_uri,
            experiment=experiment,
        )
    compared = compare_models(
        section=compare,
        reports=dsl.Collected(evaluated.outputs["report"]),
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    registered = register_model(
        section=register,
        comparison=compared.outputs["comparison"],
        models=dsl.Collected(trained.outputs["model"]),
        dataset=dataset,
        tracking_uri=tracking_uri,
        experiment=experiment,
    )
    registered.set_caching_options(False)
    for task in (prepared, trained, evaluated, compared, registered):
        _in_group_of_the_run(task)
    return Outputs(comparison=compared.outputs["comparison"], registration=registered.outputs["registration"])
