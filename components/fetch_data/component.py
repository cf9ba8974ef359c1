"""``fetch_data``: raw images at a DVC revision, by reference to where they lie, by the step ``fetch``."""

from typing import NamedTuple

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch_data(
    *,
    path: str,
    raw: dsl.Output[dsl.Dataset],
    repo: str = "",
    revision: str = "",
    store: str = "",
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> NamedTuple("Fetched", [("path", str), ("revision", str)]):
    """Fetch the raw images once for a revision, and say where they lie."""
    from pathlib import Path

    from raregrade.kubeflow import task_io
    from raregrade.steps.fetch import fetch

    fetch(
        path,
        Path(raw.path),
        repo=repo,
        revision=revision,
        store=task_io.optional_path(store),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    return task_io.describe_raw(raw)
