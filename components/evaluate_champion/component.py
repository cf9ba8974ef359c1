"""``evaluate_champion``: the champion's report on its successor's dataset, by the step ``evaluate_champion``.

Its report is named `champion`, so that it can stand beside a successor of the same loss and seed.

Tags: evaluation, registry, retraining
"""

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
    """Evaluate the champion on the dataset of its successor; nothing where there is no champion.

    Args:
        section: The section `evaluate` of params.yaml.
        champion_model: What read_champion hands over.
        dataset: The prepared dataset of the successor.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        report: Predictions, metrics.json, report and figures; empty without a champion.
        page: The report as a page.
        metrics: Metrics of the validation and the test split.
        confusion: Confusion matrix of the test split; empty for multi-label tasks.
    """
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
