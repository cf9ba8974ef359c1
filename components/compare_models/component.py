"""``compare_models``: the reports of all losses and seeds to one comparison, by the step ``compare``."""

from kfp import dsl

from components.image import IMAGE


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
    """Compare losses over seeds and choose the winner on validation."""
    from pathlib import Path

    from raregrade.config import CompareSection
    from raregrade.steps import kubeflow
    from raregrade.steps.compare import compare

    compare(
        kubeflow.from_wire(CompareSection, section),
        kubeflow.report_folders(reports, reference),
        Path(comparison.path),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_comparison(comparison, page, metrics)
