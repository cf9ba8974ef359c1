"""``collect_study``: from a study to the parameters to train with, by the step ``collect_study``."""

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
    """Finish a study, confirm its best trial on fresh seeds, and say which parameters to train with."""
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
