"""``tune_worker``: one worker of a study that several share, by the step ``tune_worker``."""

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
    """Train trials of a study beside other workers until the study is done."""
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
