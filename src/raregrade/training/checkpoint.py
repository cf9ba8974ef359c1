"""Checkpoints: everything a run needs to continue as if it had never stopped.

One file a run, in a folder named by what determines the run (parameters, data, seed, versions): the same
command finds it again, another setting never does. Written to a temporary name and renamed; removed
when the run is done.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from raregrade.atomic import atomic_file


def run_key(identity: dict[str, Any]) -> str:
    """A folder name for everything that determines a run, as JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


class Checkpoint:
    """The checkpoint file of one run. ``None`` as ``folder`` keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @property
    def path(self) -> Path | None:
        return None if self.folder is None else self.folder / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none that can be read (a torn file counts as none)."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        return dict(state)

    def save(self, state: dict[str, Any]) -> None:
        if self.path is not None:
            with atomic_file(self.path) as temporary:
                torch.save(state, temporary)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextmanager
def open_checkpoint(root: Path | None, key: str) -> Iterator[Checkpoint]:
    """The checkpoint of the run ``key`` below ``root``, held by this process alone.

    Where another process is training the very same run, this one keeps no checkpoint: the two would
    overwrite each other's.
    """
    if root is None:
        yield Checkpoint(None)
        return
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield Checkpoint(None)
        return
    try:
        yield Checkpoint(folder)
    finally:
        lock.release()
