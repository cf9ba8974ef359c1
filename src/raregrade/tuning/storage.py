"""Where studies are kept: a journal file, Postgres, or sqlite; with locks, and a way to tell living workers from dead.

A lock here is always one that goes when its holder dies: of the operating system, or of a database session. So is a
worker's sign of life on one machine; between machines it is Optuna's heartbeat in the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from raregrade.config import StudyStorage
from raregrade.errors import UserError

_LOCK_SECONDS = 120.0
_CONNECT_SECONDS = 5
_SCHEMES = "a file, postgresql://user@host/database, or sqlite:///file"


class SharedStorage(ABC):
    """An open storage of studies.

    Attributes:
        storage: Optuna's.
        name: what people call it; never holds a password.
        one_machine: workers show that they live by locks on this machine, not by heartbeats.
    """

    storage: Any
    name: str
    one_machine: bool

    @abstractmethod
    def lock(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Hold ``what`` alone among all workers of the storage. Raises UserError after two minutes of waiting."""

    @abstractmethod
    def alive(self, worker: str) -> contextlib.AbstractContextManager[None]:
        """Show that ``worker`` lives for as long as the block runs."""

    @abstractmethod
    def dead_trials(self, study: optuna.Study) -> list[int]:
        """Ids of the running trials of ``study`` whose workers no longer live."""

    def beat(self, trial_id: int) -> None:  # noqa: B027 - files need none
        """A sign of life of ``trial_id``; nothing where workers show it otherwise."""

    @contextmanager
    def beating(self, trial_id: int) -> Iterator[None]:
        """Give signs of life for ``trial_id`` while the block runs."""
        del trial_id
        yield


def open_storage(settings: StudyStorage) -> SharedStorage:
    """Open the storage of ``settings``, creating what is missing; any number of processes may do so at once.

    Raises:
        UserError: an unknown kind of address, a file that cannot be written, a database that does not answer or
            refuses, or one of another Optuna version.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scheme = settings.url.partition("://")[0] if "://" in settings.url else ""
    if not scheme:
        return _Files(Path(settings.url), journal=True)
    if scheme == "sqlite":
        return _Files(Path(settings.url.removeprefix("sqlite://").removeprefix("/")), journal=False)
    if scheme.split("+")[0] == "postgresql":
        return _Postgres(settings)
    raise UserError(f"tune.storage: {scheme}:// is not known; allowed: {_SCHEMES}")


def is_sqlite(url: str) -> bool:
    """Whether ``url`` names an sqlite database."""
    return url.startswith("sqlite:")


def masked(url: str) -> str:
    """``url`` without its password."""
    from sqlalchemy import make_url  # noqa: PLC0415 - takes a moment, and a journal never needs it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url.partition("://")[0] + "://…"


class _Files(SharedStorage):
    """A journal or an sqlite file, with lock files beside it: for the workers of one machine."""

    one_machine = True

    def __init__(self, path: Path, *, journal: bool) -> None:
        # Absolute: a worker may be started in another folder, and it must be the same file to it.
        self.path = path.absolute()
        self.name = str(path)
        self.workers = self.path.with_name(f"{self.path.name}.workers")
        try:
            self.workers.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
        except OSError as err:
            raise UserError(f"tune.storage: cannot write {path}: {err.strerror}. Name another file.") from err
        with self.lock("open"), _as_user_error(self.name):
            self.storage = self._open_journal() if journal else self._open_sqlite()

    def lock(self, what: str) -> contextlib.AbstractContextManager[None]:
        return _file_lock(self.path.with_name(f"{self.path.name}.{_short(what)}.lock"))

    @contextmanager
    def alive(self, worker: str) -> Iterator[None]:
        path = self.workers / worker
        with FileLock(path):
            yield
        path.unlink(missing_ok=True)

    def dead_trials(self, study: optuna.Study) -> list[int]:
        running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return [t._trial_id for t in running if not self._lives(str(t.user_attrs.get("worker", "")))]

    def _lives(self, worker: str) -> bool:
        """Whether some process holds the worker's lock: the kernel lets go of it when the process dies."""
        path = self.workers / worker
        if not worker or not path.is_file():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False

    def _open_journal(self) -> Any:
        try:
            return JournalStorage(_Journal(self.path))
        except (ValueError, KeyError, UnicodeDecodeError) as err:
            raise UserError(f"tune.storage: {self.name} is not a journal of Optuna: {err}. Name another file.") from err

    def _open_sqlite(self) -> Any:
        return get_storage(RDBStorage(f"sqlite:///{self.path}"))


class _Journal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal without its wait for the disk after every line, which is most of what a trial costs.

    A killed process loses nothing by it, since the kernel has the line; a power cut may cost the last seconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._append = _JournalLock(path)
        super().__init__(str(path), lock_obj=self._append)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add a line for each of ``logs``."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._append.acquire()
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(lines.encode())
        finally:
            self._append.release()


class _JournalLock:
    """The lock under which lines are added to a journal: the kernel's, so that a dead process holds nothing.

    Optuna's own are files that stay behind a killed process: others wait for half a minute, and forever where the
    journal's path is relative. A line that a killed process left unfinished is cut off, which would make the journal
    unreadable otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.append.lock"), timeout=_LOCK_SECONDS)

    def acquire(self) -> bool:
        self._lock.acquire()
        self._cut_unfinished_line()
        return True

    def release(self) -> None:
        self._lock.release()

    def _cut_unfinished_line(self) -> None:
        with self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end == 0:
                return
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


class _Postgres(SharedStorage):
    """Postgres: any number of machines. Locks are advisory locks; workers give heartbeats."""

    one_machine = False

    def __init__(self, settings: StudyStorage) -> None:
        from sqlalchemy import create_engine, event  # noqa: PLC0415

        self.interval = settings.heartbeat
        self.name = masked(settings.url)
        # Without a driver's name SQLAlchemy 2.1 takes another one than the extra installs.
        scheme, rest = settings.url.split("://", 1)
        url = f"postgresql+psycopg2://{rest}" if scheme == "postgresql" else settings.url
        options: dict[str, Any] = {
            "pool_pre_ping": True,
            "connect_args": {"connect_timeout": _CONNECT_SECONDS},
        }
        with _as_user_error(self.name):
            self._engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, **options)
            event.listen(self._engine, "connect", _notice_lost_clients)
            # Processes that create the tables at once break one another.
            with self.lock("schema"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.storage = get_storage(
                    RDBStorage(
                        url,
                        engine_kwargs=options,
                        heartbeat_interval=settings.heartbeat,
                        grace_period=settings.grace,
                    )
                )

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        from sqlalchemy import text  # noqa: PLC0415

        number = int.from_bytes(hashlib.sha256(f"raregrade {what}".encode()).digest()[:8], signed=True)
        with _as_user_error(self.name), self._engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})

    @contextmanager
    def alive(self, worker: str) -> Iterator[None]:
        del worker
        yield

    def dead_trials(self, study: optuna.Study) -> list[int]:
        return list(self.storage._get_stale_trial_ids(study._study_id))

    def beat(self, trial_id: int) -> None:
        self.storage.record_heartbeat(trial_id)

    @contextmanager
    def beating(self, trial_id: int) -> Iterator[None]:
        stop = threading.Event()

        def beat_until_stopped() -> None:
            while not stop.wait(self.interval):
                # The next beat may get through; if none does, another worker takes the trial over.
                with contextlib.suppress(StorageInternalError):
                    self.beat(trial_id)

        thread = threading.Thread(target=beat_until_stopped, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _notice_lost_clients(connection: Any, _: Any) -> None:
    """Let Postgres find out within a minute that a machine is gone, and with it let go of its locks."""
    with connection.cursor() as cursor:
        cursor.execute("SET tcp_keepalives_idle = 30")
        cursor.execute("SET tcp_keepalives_interval = 10")
        cursor.execute("SET tcp_keepalives_count = 3")
        cursor.execute(f"SET lock_timeout = '{_LOCK_SECONDS:.0f}s'")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=_LOCK_SECONDS):
            yield
    except Timeout as err:
        raise UserError(
            f"another process has held {err.lock_file} for {_LOCK_SECONDS:.0f} s. "
            "See what holds it (`fuser FILE`), end it, and run again."
        ) from err


@contextmanager
def _as_user_error(name: str) -> Iterator[None]:
    """What SQLAlchemy, the driver or Optuna raise as one message that names the storage and no password."""
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as err:
        raise UserError(
            f"tune.storage: the driver {err.name} of {name} is not installed. "
            "Install it with `pip install 'raregrade[tuning]'`."
        ) from err
    except Exception as err:
        cause = err.__cause__ if isinstance(err, StorageInternalError) and err.__cause__ else err
        if type(cause).__module__.split(".")[0] not in ("sqlalchemy", "alembic", "optuna", "psycopg2", "psycopg"):
            raise
        text = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        raise UserError(
            f"tune.storage: the study database {name} cannot be used: {text[0] if text else type(cause).__name__}. "
            "Check that it runs, and host, port, user and password (PGPASSWORD); or leave tune.storage out."
        ) from err


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
