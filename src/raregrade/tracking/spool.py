"""What a run has to say to MLflow, kept in a file until MLflow has it.

Every entry is written down before it is sent, and ticked off when it was taken. So nothing is lost with a server that
is down, nor with a process that is killed: the next command that logs to the same store sends what is left, as does
``raregrade sync``. An entry carries the time it was made and may be sent twice: MLflow takes a metric with the same
name, step, time and value once, and everything else replaces itself.

One folder per run and process below ``.raregrade/tracking`` (``RAREGRADE_SPOOL``): ``about.json``, ``entries.jsonl``,
``sent`` and ``files/``. Its lock is held by the process for as long as that lives. How an entry is sent is the business
of ``delivery``. No password is written down: the address of the store is there as a hash, and without them for people.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from raregrade.tracking.connection import Connection, absolute_uri, masked

FOLDER_VARIABLE = "RAREGRADE_SPOOL"
_DEFAULT_FOLDER = Path(".raregrade/tracking")
_ABOUT, _ENTRIES, _SENT, _FILES, _LOCK = "about.json", "entries.jsonl", "sent", "files", "lock"
_METRICS_A_REQUEST = 1000

Entry = dict[str, Any]


@dataclass(frozen=True)
class About:
    """Which run entries belong to.

    Attributes:
        store: hash of the tracking URI.
        where: the tracking URI without passwords, for people.
    """

    store: str
    where: str
    experiment: str
    experiment_id: str
    run_id: str
    parent_id: str | None

    @classmethod
    def of(cls, connection: Connection, experiment: str, run_id: str, parent_id: str | None) -> About:
        """The run ``run_id`` in the store of ``connection``."""
        where = masked(connection.uri)
        return cls(store_hash(connection.uri), where, experiment, connection.experiment_id, run_id, parent_id)


class Spool:
    """The entries of one run that MLflow does not have yet, in order. Safe to use from two threads.

    Where the disk takes nothing, entries are kept in memory, and ``durable`` is False.
    """

    def __init__(self, about: About, folder: Path | None) -> None:
        self.about = about
        self.folder = folder
        self.durable = folder is not None
        self._guard = threading.Lock()
        self._waiting: list[tuple[int, Entry]] = []
        self._aside: list[tuple[int, Entry]] = []
        self._count = 0
        self._lock: filelock.BaseFileLock | None = None

    @classmethod
    def create(cls, about: About) -> Spool:
        """An empty one, held by this process."""
        # Workers of a study log into one run, each through a folder of its own.
        folder = spool_root() / f"{about.run_id}-{uuid.uuid4().hex[:8]}"
        spool = cls(about, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            spool._lock = filelock.FileLock(folder / _LOCK)
            spool._lock.acquire(timeout=0)
            (folder / _ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
        except OSError:  # a full disk, or a working folder that may not be written
            spool.durable = False
        return spool

    @property
    def empty(self) -> bool:
        """Whether MLflow has everything."""
        with self._guard:
            return not self._waiting and not self._aside

    def __len__(self) -> int:
        with self._guard:
            return len(self._waiting) + len(self._aside)

    @property
    def ended(self) -> bool:
        """Whether the last entry says how the run ended; one that was killed did not come to it."""
        with self._guard:
            everything = self._waiting + self._aside
            return any(entry["do"] == "end" for _, entry in everything)

    def last_time(self) -> int:
        """Of the last entry, in milliseconds since 1970: the process of the run lived at least that long."""
        seconds = _age(self.folder / _ENTRIES) if self.folder is not None else time.time()
        return int(seconds * 1000)

    def add(self, entry: Entry) -> None:
        """Write down ``entry``: JSON values, with ``do`` saying what it is."""
        with self._guard:
            number = self._count
            self._count += 1
            if entry["do"] == "artifacts":
                entry = entry | {"copy": self._copy(number, Path(entry["path"]))}
            self._append(_ENTRIES, json.dumps(entry))
            self._waiting.append((number, entry))

    def next(self) -> tuple[list[int], Entry] | None:
        """What to send next, with the numbers of its entries: metrics that follow each other go in one request."""
        with self._guard:
            if not self._waiting:
                return None
            number, entry = self._waiting[0]
            if entry["do"] != "metrics":
                return [number], entry
            numbers: list[int] = []
            metrics: list[Any] = []
            for other, more in self._waiting:
                fits = len(metrics) + len(more.get("metrics", ())) <= _METRICS_A_REQUEST
                if more["do"] != "metrics" or more["run"] != entry["run"] or (numbers and not fits):
                    break
                numbers.append(other)
                metrics += more["metrics"]
            return numbers, entry | {"metrics": metrics}

    def tick(self, numbers: list[int]) -> None:
        """MLflow has these."""
        with self._guard:
            self._append(_SENT, "\n".join(map(str, numbers)))
            self._waiting = [item for item in self._waiting if item[0] not in numbers]
            for number in numbers:
                if self.folder is not None:
                    shutil.rmtree(self.folder / _FILES / str(number), ignore_errors=True)

    def set_aside(self, numbers: list[int]) -> None:
        """Leave these for another time, and go on with the next."""
        with self._guard:
            self._aside += [item for item in self._waiting if item[0] in numbers]
            self._waiting = [item for item in self._waiting if item[0] not in numbers]

    def close(self) -> None:
        """Let go of it; it is removed where MLflow has everything."""
        folder = self.folder
        if folder is not None and self.empty:
            shutil.rmtree(folder, ignore_errors=True)
            for parent in (folder.parent, folder.parent.parent):
                if parent.name in (_DEFAULT_FOLDER.name, _DEFAULT_FOLDER.parent.name):
                    with suppress(OSError):  # another run's is there
                        parent.rmdir()
        if self._lock is not None:
            self._lock.release()

    def path_of(self, entry: Entry) -> Path:
        """The file or folder of an ``artifacts`` entry: the copy, or where there is none the original."""
        return Path(entry["copy"] or entry["path"])

    def _copy(self, number: int, path: Path) -> str | None:
        """Of a file that the next step may replace or remove before it is sent."""
        if self.folder is None or not self.durable:
            return None
        target = self.folder / _FILES / str(number) / path.name
        try:
            target.parent.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copyfile(path, target)
        except (OSError, shutil.Error):
            shutil.rmtree(target.parent, ignore_errors=True)
            return None
        return str(target)

    def _append(self, name: str, line: str) -> None:
        if self.folder is None or not self.durable:
            return
        try:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError:
            self.durable = False

    def _load(self) -> None:
        assert self.folder is not None
        lines = _lines(self.folder / _ENTRIES)
        sent = {int(word) for word in _lines(self.folder / _SENT) if word.isdigit()}
        self._count = len(lines)
        for number, line in enumerate(lines):
            with suppress(ValueError):  # the last line of a process that was killed while it wrote it
                if number not in sent:
                    self._waiting.append((number, json.loads(line)))


def store_hash(uri: str) -> str:
    """Names a store without saying its address, which may hold a password."""
    return hashlib.sha256(absolute_uri(uri).encode()).hexdigest()[:16]


def spool_root() -> Path:
    """The folder that holds the folders of the runs."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).absolute()


def waiting_runs() -> dict[Path, About]:
    """The folders in which something may wait to be sent, in the order in which their runs were begun."""
    paths = sorted(spool_root().glob(f"*/{_ABOUT}"), key=_age)
    return {path.parent: about for path in paths if (about := _read_about(path)) is not None}


@contextmanager
def reopened(folder: Path) -> Iterator[Spool | None]:
    """The spool that a process has left behind; None where that still lives, or where everything was sent meanwhile."""
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        yield None
        return
    about = _read_about(folder / _ABOUT)
    if about is None:
        lock.release()
        yield None
        return
    spool = Spool(about, folder)
    spool._lock = lock
    try:
        spool._load()
        yield spool
    finally:
        spool.close()


def _read_about(path: Path) -> About | None:
    try:
        return About(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
