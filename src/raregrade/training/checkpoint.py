"""Checkpoints: everything a run needs to continue as if it had never stopped.

A run's checkpoints lie in a folder (or below an ``s3://`` address, see ``remote_checkpoint``) named by what determines
the run (parameters, data, seed, versions): the same command finds them again, another setting never does. The newest
two are kept, ``state-000007.pt`` and ``state-000008.pt``: where the newest is torn or rotten, the one before it counts.
They are removed when the run is done.

``save`` copies the state and returns; a thread of its own writes it, under a temporary name that becomes the final one
when every byte is on the disk. A checkpoint that cannot be written costs a warning and not the training.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import FileLock, Timeout

from raregrade.atomic import NO_ROOM, WriteError, atomic_file, check_writable, megabytes, os_error, write_error
from raregrade.training.state_file import on_cpu, read_state, state_bytes, write_state

KEPT = 2
# Weights, their two moments in Adam, and the best weights so far.
_COPIES_OF_THE_WEIGHTS = 4

_logger = logging.getLogger(__name__)
Warn = Callable[[str], None]


def run_key(identity: dict[str, Any]) -> str:
    """A folder name for everything that determines a run, as JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


class Store(Protocol):
    """Where the checkpoints of one run lie, numbered as they were written."""

    @property
    def place(self) -> str:
        """What people call it."""

    def numbers(self) -> list[int]:
        """Of the checkpoints that are there, newest first."""

    def read(self, number: int) -> IO[bytes]:
        """A checkpoint to read from."""

    def write(self, number: int, state: dict[str, Any]) -> None:
        """Write all of it or nothing."""

    def remove(self, number: int) -> None:
        """Remove it, if it is there."""

    def check_space(self, need: int) -> None:
        """Raise UserError where there is no room for ``need`` bytes."""


class Checkpoint:
    """The checkpoints of one run, in a folder or another ``Store``. None keeps nothing.

    Attributes:
        place: where they lie, as people call it; None where none are kept.
        problem: why the last one could not be written; empty while all is well.
        seconds: what the last one took of the training, and then of the thread that wrote it.
    """

    def __init__(self, store: Store | Path | None, warn: Warn = _logger.warning) -> None:
        self._store = FolderStore(store) if isinstance(store, Path) else store
        self.place = None if self._store is None else self._store.place
        self.problem = ""
        self.seconds = (0.0, 0.0)
        self._warn = warn
        self._writer: threading.Thread | None = None
        self._number = 0
        self._copy: dict[str, Any] | None = None

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._store is not None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written at the moment."""
        return self._writer is not None and self._writer.is_alive()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, with its tensors on the CPU; None where there is none."""
        if self._store is None:
            return None
        self.wait()
        for number in self._store.numbers():
            with self._store.read(number) as file:
                state = read_state(file)
            if state is not None:
                return state
        return None

    def save(self, state: dict[str, Any], *, wait: bool = False) -> bool:
        """Keep ``state``, a nested dict of tensors and plain values. It may change as soon as this returns.

        Args:
            state: what ``load`` gives back.
            wait: return when it is kept, after any that is still being written. Without it, a state that comes
                while another is being written is left out: the next one will hold more.

        Returns:
            Whether the state is kept; without ``wait``, whether it is being written.
        """
        if self._store is None or (self.busy and not wait):
            return False
        self.wait()
        started = time.perf_counter()
        copy = self._copy = on_cpu(state, self._copy)
        copying = time.perf_counter() - started
        # A daemon: a second interrupt ends the process at once, and the file under its temporary name with it.
        self._writer = threading.Thread(target=self._write, args=(self._store, copy, copying), daemon=True)
        self._writer.start()
        if not wait:
            return True
        self.wait()
        return not self.problem

    def wait(self) -> None:
        """Return when nothing is being written any more."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def remove(self) -> None:
        """Remove every checkpoint of the run."""
        self.wait()
        if self._store is not None:
            for number in self._store.numbers():
                self._store.remove(number)

    def check_space(self, weights: int) -> None:
        """Find out before training whether the checkpoints of a model with ``weights`` bytes have room.

        Raises:
            UserError: they don't.
        """
        if self._store is not None:
            self._store.check_space(KEPT * _COPIES_OF_THE_WEIGHTS * weights)

    def _write(self, store: Store, state: dict[str, Any], copying: float) -> None:
        started = time.perf_counter()
        try:
            self._number = (self._number or next(iter(store.numbers()), 0)) + 1
            _write_with_room(store, self._number, state)
        except Exception as err:
            # Whatever it is, hours of training are worth more.
            self.problem = err.reason if isinstance(err, WriteError) else str(err) or type(err).__name__
            size = megabytes(state_bytes(state))
            self._warn(
                f"the checkpoint of {size} could not be kept in {store.place}: {self.problem}. Training goes on; "
                "killed now, it would go on from the checkpoint before."
            )
        else:
            self.problem = ""
        self.seconds = (copying, time.perf_counter() - started)


def _write_with_room(store: Store, number: int, state: dict[str, Any]) -> None:
    """Write it and keep ``KEPT``; where they have no room together, one that is whole has to do."""
    try:
        store.write(number, state)
    except WriteError as err:
        cause = os_error(err)
        older = store.numbers()[1:]
        if cause is None or cause.errno not in NO_ROOM or not older:
            raise
        for past in older:
            store.remove(past)
        store.write(number, state)
    for past in store.numbers()[KEPT:]:
        store.remove(past)


class FolderStore:
    """Checkpoints in a folder of this machine, or of a volume mounted on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        return str(self.folder)

    def numbers(self) -> list[int]:
        return numbers_of([path.name for path in self.folder.iterdir()]) if self.folder.is_dir() else []

    def read(self, number: int) -> IO[bytes]:
        return self._path(number).open("rb")

    def write(self, number: int, state: dict[str, Any]) -> None:
        with atomic_file(self._path(number)) as temporary, temporary.open("wb") as file:
            write_state(state, file)
            os.fsync(file.fileno())

    def remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def check_space(self, need: int) -> None:
        present = sum(self._path(number).stat().st_size for number in self.numbers())
        check_writable(self.folder, max(0, need - present))

    def remove_left_overs(self) -> None:
        """Remove what a process that was killed while it wrote has left behind."""
        for path in self.folder.glob(".state-*.tmp.pt"):
            path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / state_name(number)


def state_name(number: int) -> str:
    """The file of the ``number``-th checkpoint of a run, counted from 1."""
    return f"state-{number:06d}.pt"


def numbers_of(names: Iterable[str]) -> list[int]:
    """The numbers of the checkpoints among the files ``names``, highest first."""
    matches = (re.fullmatch(r"state-(\d+)\.pt", name) for name in names)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


@contextmanager
def open_checkpoint(root: Path | str | None, key: str, warn: Warn = _logger.warning) -> Iterator[Checkpoint]:
    """The checkpoints of the run ``key`` below ``root``, held by this process alone.

    Where another process on this machine is training the very same run, this one keeps no checkpoint: the two
    would overwrite each other's. On leaving, what is being written is finished.

    Args:
        root: a folder, or an address ``s3://bucket/prefix``; None keeps nothing.
        key: what ``run_key`` returns.
        warn: is told, by the writing thread, about a checkpoint that could not be written.

    Raises:
        UserError: the folder cannot be written; the S3 address cannot be reached, or refuses.
    """
    checkpoint, lock = Checkpoint(None), None
    if is_remote(root):
        from raregrade.training.remote_checkpoint import S3Store  # noqa: PLC0415 - only where it is asked for

        checkpoint = Checkpoint(S3Store.connect(str(root), key), warn)
    elif root is not None:
        store = FolderStore(Path(root) / key)
        lock = _lock(store.folder)
        if lock is not None:
            store.remove_left_overs()
            checkpoint = Checkpoint(store, warn)
    try:
        yield checkpoint
    finally:
        checkpoint.wait()
        if lock is not None:
            lock.release()


def is_remote(root: Path | str | None) -> bool:
    """Whether ``root`` is an S3 address; a Path made from one has lost a slash."""
    return str(root).startswith("s3:/")


def _lock(folder: Path) -> FileLock | None:
    """The lock of ``folder``, which is made where it is missing; None where another process holds it."""
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as err:
        raise write_error(err, folder) from err
    return lock
