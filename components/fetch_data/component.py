"""``fetch_data``: raw images at a DVC revision, by reference to where they lie, by the step ``fetch``.

Nothing is copied into the artifact: `raw` holds `fetched.json` alone, and the later tasks read the images at
`path`.

- With `repo`: what DVC tracks as `path` at `revision` is brought to `STORE/raw/MD5/`, once, however many runs use
  it. Each file is checked against DVC's md5. An interrupted fetch goes on where it stopped. Neither git nor a
  checkout is needed.
- Without `repo`: `path` is looked at where it lies, such as on a mounted volume.

Credentials of the DVC remote come from the environment. For S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and,
for a server of your own, `AWS_ENDPOINT_URL_S3`. A pipeline never takes this task from the cache, since a branch is
another revision tomorrow; `path` and `revision`, which it hands on, decide whether the tasks after it are.

Tags: data, dvc, s3
"""

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
    """Fetch the raw images once for a revision, and say where they lie.

    Args:
        path: The file or folder within the repository; without one, where the images lie already.
        repo: A git repository with DVC; empty for images that are mounted.
        revision: A commit, tag or branch; without a repository, what names the content.
        store: Folder shared between runs, which keeps what is fetched; needed with a repository.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        raw: fetched.json: path, md5, revision, number of files and bytes.
        path: Where the images lie for the tasks that come after.
        revision: DVC's md5 of the images, or the revision where DVC does not track them.
    """
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
