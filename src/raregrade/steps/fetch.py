"""Step ``fetch``: raw data at a revision, by reference to where they lie."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raregrade.atomic import write_text
from raregrade.errors import DataError
from raregrade.tracking import Tracking, dvc_md5, start_step

FETCHED = "fetched.json"


def fetch(
    path: str, out: Path, *, tracking: Tracking, repo: str = "", revision: str = "", store: Path | None = None
) -> dict[str, Any]:
    """Bring raw data to a folder that the later steps can read, and write ``out / "fetched.json"``, which names it.

    The data themselves are not copied to ``out``: they are fetched once for a revision, however many runs use it.

    Args:
        path: of the file or folder within ``repo``; without ``repo``, where the data lie already.
        out: folder for the description.
        tracking: where the run is logged.
        repo: URL or folder of a git repository with DVC; empty for data that are mounted.
        revision: a commit, tag or branch of ``repo``; without ``repo``, whatever names the content.
        store: folder shared between runs, which keeps what is fetched; needed with ``repo``.

    Returns:
        The content of ``fetched.json``: ``path``, ``md5``, ``revision``, ``files``, ``size``, ``repo``.

    Raises:
        DataError: nothing at ``path``, no ``store``, or what ``data.revisions.fetch_revision`` refuses.
    """
    from raregrade.data.revisions import describe_local, fetch_revision

    with start_step(tracking, "fetch", name="fetch") as run:
        if not repo:
            raw = describe_local(Path(path), md5=dvc_md5(Path(path)) or "", revision=revision)
        elif store is None:
            raise DataError(f"{path} of a repository is fetched into a store: give the folder that later steps read.")
        else:
            raw = fetch_revision(repo, path, revision, store)
        value = {**asdict(raw), "path": str(raw.path)}
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / FETCHED, json.dumps(value, indent=2) + "\n")
        run.log_params(value)
    return value
