"""``prepare_dataset``: raw images to a prepared dataset, by the step ``prepare``."""

from kfp import dsl

from components.image import IMAGE


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
    from raregrade.steps import kubeflow
    from raregrade.steps.prepare import prepare

    prepare(
        kubeflow.with_raw_data(kubeflow.from_wire(PrepareSection, section), raw_data),
        Path(dataset.path),
        store=kubeflow.optional_path(store),
        previous=kubeflow.optional_path(previous),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_dataset(dataset, data_revision)
