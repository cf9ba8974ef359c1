"""``compare_models``: the reports of all losses and seeds to one comparison, by the step ``compare``.

`reference` is how a retraining shows the champion beside its successor: listed, and no candidate.

Tags: evaluation, comparison, statistics
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare_models(
    *,
    section: dict,
    reports: dsl.Input[list[dsl.Artifact]],
    comparison: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    reference: dsl.Input[dsl.Artifact] = None,
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Compare losses over seeds and choose the winner on validation.

    Args:
        section: The section `compare` of params.yaml.
        reports: The reports of all losses and seeds.
        reference: A report to list beside them, which cannot win; left out where it is empty.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        comparison: comparison.json, tables, page and figures.
        page: The comparison as a page.
        metrics: Each loss's mean of the metric that chose the winner.
    """
    from pathlib import Path

    from raregrade.config import CompareSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.compare import compare

    compare(
        task_io.section_from_argument(CompareSection, section),
        task_io.report_folders(reports, reference),
        Path(comparison.path),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_comparison(comparison, page, metrics)
