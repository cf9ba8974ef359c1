"""``prepare_dataset``: raw images to a prepared dataset, by the step ``prepare``."""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare_dataset(
    *,
    section: dict,
    dataset: dsl.Output[dsl.Dataset],
    raw_data: str = "",
    data_revision: str = "",
    store: str = "",
    previous: str = "",
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Decode, split by group and check the raw images."""
    from pathlib import Path

    from raregrade.config import PrepareSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.prepare import prepare

    prepare(
        task_io.with_raw_data(task_io.section_from_argument(PrepareSection, section), raw_data),
        Path(dataset.path),
        store=task_io.optional_path(store),
        previous=task_io.optional_path(previous),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_dataset(dataset, data_revision)
