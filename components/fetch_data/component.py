"""``fetch_data``: raw images at a DVC revision, by reference to where they lie, by the step ``fetch``."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


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

    from raregrade.steps import kubeflow
    from raregrade.steps.fetch import fetch

    fetch(
        path,
        Path(raw.path),
        repo=repo,
        revision=revision,
        store=kubeflow.optional_path(store),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    return kubeflow.describe_raw(raw)
