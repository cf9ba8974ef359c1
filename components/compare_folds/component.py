"""``compare_folds``: the reports of cross-validation to one comparison, by the step ``compare_folds``.

Each image of training and validation is predicted once per loss and seed, by the model that did not train on it. A
metric on validation is the mean over folds, and a difference is tested over folds (Nadeau and Bengio). On the test
split every model counts by itself. `folds.json` has mean and spread over folds.

Tags: evaluation, comparison, cross-validation
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare_folds(
    *,
    section: dict,
    reports: dsl.Input[list[dsl.Artifact]],
    dataset: dsl.Input[dsl.Dataset],
    comparison: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Compare losses over the folds of cross-validation, each model by its own metrics.

    Args:
        section: The section `compare` of params.yaml.
        reports: The reports of all losses, seeds and folds.
        dataset: The prepared dataset with the folds.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        comparison: The comparison, and folds.json.
        page: The comparison as a page.
        metrics: Each loss's mean of the metric that chose the winner, and mean and spread over folds of each seed.
    """
    from pathlib import Path

    from raregrade.config import CompareSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.compare_folds import compare_folds

    compare_folds(
        task_io.section_from_argument(CompareSection, section),
        [Path(report.path) for report in reports],
        Path(dataset.path),
        Path(comparison.path),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_folds(comparison, page, metrics)
