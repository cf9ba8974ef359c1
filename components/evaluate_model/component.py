"""``evaluate_model``: a model and its dataset to a report, by the step ``evaluate``.

A model of cross-validation is evaluated on the fold that it was not trained on.

Tags: evaluation, metrics, image-classification
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_model(
    *,
    section: dict,
    model: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Predict validation and test images and evaluate the predictions.

    Args:
        section: The section `evaluate` of params.yaml.
        model: A trained model.
        dataset: The prepared dataset it was trained on.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        report: Predictions, metrics.json, report and figures.
        page: The report as a page.
        metrics: Metrics of the validation and the test split.
        confusion: Confusion matrix of the test split; empty for multi-label tasks.
    """
    from pathlib import Path

    from raregrade.config import EvaluateSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.evaluate import evaluate

    evaluate(
        task_io.section_from_argument(EvaluateSection, section),
        Path(model.path),
        Path(dataset.path),
        Path(report.path),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_report(report, page, metrics, confusion)
