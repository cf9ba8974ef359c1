"""``evaluate_champion``: the champion's report on its successor's dataset, by the step ``evaluate_champion``."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_champion(
    *,
    section: dict,
    champion_model: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Judge the champion on the dataset of its successor; nothing where there is no champion."""
    from pathlib import Path

    from raregrade.config import EvaluateSection
    from raregrade.steps import kubeflow
    from raregrade.steps.evaluate_champion import evaluate_champion

    evaluate_champion(
        kubeflow.from_wire(EvaluateSection, section),
        Path(champion_model.path),
        Path(dataset.path),
        Path(report.path),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_report(report, page, metrics, confusion)
