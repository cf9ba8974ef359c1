"""Prepared datasets that a store remembers: description and manifest, found by content hash.

The shards of a dataset lie in the store by content hash already (see ``prepare``). With its description beside them a
later run can open it without knowing which task once wrote it, and deal only the groups that it does not have.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from raregrade.atomic import atomic_folder
from raregrade.data.manifest import INFO_FILE, MANIFEST_FILE, PreparedDataset, read_info

_FOLDER = "prepared"


def remember(dataset: PreparedDataset, store: Path) -> Path:
    """Keep description and manifest of ``dataset``, whose shards are in ``store``; the folder that holds them."""
    folder = _folder(store, dataset.content_hash)
    if not (folder / INFO_FILE).is_file():
        with atomic_folder(folder) as temporary:
            for name in (MANIFEST_FILE, INFO_FILE):
                shutil.copyfile(dataset.root / name, temporary / name)
    return folder


def recall(store: Path, content_hash: str) -> Path:
    """The folder of the dataset with that content hash. Raises DataError where ``store`` does not have it."""
    folder = _folder(store, content_hash)
    read_info(folder)
    return folder


def _folder(store: Path, content_hash: str) -> Path:
    return store.absolute() / _FOLDER / content_hash
