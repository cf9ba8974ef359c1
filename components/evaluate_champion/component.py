"""``evaluate_champion``: the champion's report on its successor's dataset, by the step ``evaluate_champion``."""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


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
    from raregrade.kubeflow import task_io
    from raregrade.steps.evaluate_champion import evaluate_champion

    evaluate_champion(
        task_io.section_from_argument(EvaluateSection, section),
        Path(champion_model.path),
        Path(dataset.path),
        Path(report.path),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_report(report, page, metrics, confusion)
