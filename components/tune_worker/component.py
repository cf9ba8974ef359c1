"""``tune_worker``: one worker of a study that several share, by the step ``tune_worker``.

Any number of workers share a study by `storage` alone. A database serves workers on several nodes; a journal file
serves those on one. A password belongs in the variable `PGPASSWORD`, from a secret, and never into `storage`. Never
taken from the cache: the study is in the storage, not in an output.

Tags: tuning, optuna, training
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tune_worker(
    *,
    worker: dict,
    section: dict,
    storage: dict,
    dataset: dsl.Input[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Train trials of a study beside other workers until the study is done.

    Args:
        worker: What tells this worker from the others, such as its number.
        section: The section `tune` of params.yaml for one loss.
        storage: Where the study is kept: a journal in a shared folder, or a database.
        dataset: A prepared dataset; its test split is out of reach.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        metrics: How many trials this worker finished.
    """
    from pathlib import Path

    from raregrade.config import StudyStorage, TuneSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.tune import tune_worker

    task_io.describe_worker(
        tune_worker(
            task_io.section_from_argument(TuneSection, section),
            Path(dataset.path),
            storage=task_io.section_from_argument(StudyStorage, storage),
            tracking=task_io.tracking(tracking_uri, experiment),
            checkpoints=task_io.checkpoints(),
        ),
        worker,
        metrics,
    )
