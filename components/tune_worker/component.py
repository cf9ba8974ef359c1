"""``tune_worker``: one worker of a study that several share, by the step ``tune_worker``."""

from kfp import dsl

from components.image import IMAGE


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
    from raregrade.steps import kubeflow
    from raregrade.steps.tune import tune_worker

    kubeflow.describe_worker(
        tune_worker(
            kubeflow.from_wire(TuneSection, section),
            Path(dataset.path),
            storage=kubeflow.from_wire(StudyStorage, storage),
            tracking=kubeflow.tracking(tracking_uri, experiment),
            checkpoints=kubeflow.checkpoints(),
        ),
        worker,
        metrics,
    )
