"""``compare_folds``: the reports of cross-validation to one comparison, by the step ``compare_folds``."""

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
    """Compare losses over the folds of cross-validation, each model by its own metrics."""
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
