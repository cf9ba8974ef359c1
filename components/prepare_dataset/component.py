"""``prepare_dataset``: raw images to a prepared dataset, by the step ``prepare``.

With `store` the decoded images lie in `STORE/HASH`, and the artifact holds description and manifest alone. The
store remembers the description too, so that a later run can name the dataset as `previous`.

Tags: data, preprocessing, medical-imaging
"""

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
    """Decode, split by group and check the raw images.

    Args:
        section: The section `prepare` of params.yaml.
        raw_data: Where the raw images lie for this task; empty takes data.path of the section.
        data_revision: What names the content of the raw images; a new one prepares them again.
        store: Folder for the decoded images; empty keeps them in the artifact.
        previous: An earlier prepared dataset, whose groups keep their split; empty assigns all groups anew.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        dataset: dataset.json and manifest; the images beside them, or by reference to the store.
    """
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
