"""``compare_folds``: the reports of cross-validation to one comparison, by the step ``compare_folds``."""

from kfp import dsl

from components.image import IMAGE


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
    from raregrade.steps import kubeflow
    from raregrade.steps.compare_folds import compare_folds

    compare_folds(
        kubeflow.from_wire(CompareSection, section),
        [Path(report.path) for report in reports],
        Path(dataset.path),
        Path(comparison.path),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_folds(comparison, page, metrics)
