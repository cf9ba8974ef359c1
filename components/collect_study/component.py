"""``collect_study``: from a study to the parameters to train with, by the step ``collect_study``.

Trials that the workers left undone are done here, then the best is trained anew with fresh seeds beside the loss as
it is. Where the result is not better, `best.yaml` says so and holds the parameters of the loss as it was.

Tags: tuning, optuna
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def collect_study(
    *,
    section: dict,
    storage: dict,
    dataset: dsl.Input[dsl.Dataset],
    workers: dsl.Input[list[dsl.Metrics]],
    study: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Finish a study, confirm its best trial on fresh seeds, and say which parameters to train with.

    Args:
        section: The section `tune` of params.yaml for one loss.
        storage: Where the study is kept.
        dataset: The prepared dataset of the study.
        workers: What each worker finished; the study is collected after them.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        study: best.yaml, the table of trials, and figures.
        page: The verdict and the best trials as a page.
        metrics: The best value of the objective and how many trials each worker finished.
    """
    from pathlib import Path

    from raregrade.config import StudyStorage, TuneSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.collect_study import collect_study

    collect_study(
        task_io.section_from_argument(TuneSection, section),
        Path(dataset.path),
        Path(study.path),
        storage=task_io.section_from_argument(StudyStorage, storage),
        tracking=task_io.tracking(tracking_uri, experiment),
        checkpoints=task_io.checkpoints(),
    )
    task_io.describe_study(study, workers, page, metrics)
