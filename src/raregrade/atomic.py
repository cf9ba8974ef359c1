"""Writing files and folders so that a half-written one never looks finished.

Everything is written under a temporary name in the same parent folder and renamed at the end; after a
crash the temporary name is left behind, the final name is either the old content or the new. A disk that is
full or read-only is a ``WriteError`` that names the place, what is free there, and what to do.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raregrade.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (*NO_ROOM, errno.EROFS)
_PROBE_BYTES = 64 * 1024


class WriteError(UserError):
    """A file or folder cannot be written: the disk is full or read-only, or permission is missing.

    Attributes:
        path: what could not be written.
        reason: what the system said, and how much room there is.
    """

    def __init__(self, path: Path, reason: str, advice: str, note: str = "") -> None:
        super().__init__(f"cannot write {path}: {reason}. {advice}{note and f' {note}'}")
        self.path = path
        self.reason = reason
        self.advice = advice

    def of(self, path: Path) -> WriteError:
        """The same for ``path``, of which this one's is a part."""
        return WriteError(path, self.reason, self.advice)

    def with_note(self, note: str) -> WriteError:
        """The same with a last sentence."""
        return WriteError(self.path, self.reason, self.advice, note)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it becomes ``path``, on error it is removed.

    Raises:
        WriteError: the disk is full or read-only.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except Exception as err:
        _raise_write_error(err, path, temporary)
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, on error it is removed.

    A folder cannot be exchanged for another in one step: an existing ``path`` is moved aside first and
    put back if the second rename fails.

    Raises:
        WriteError: the disk is full or read-only.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        _put_in_place(temporary, path)
    except Exception as err:
        _raise_write_error(err, path, temporary)
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(path: Path, need: int = 0) -> None:
    """Find out now whether ``path``, a file or folder that need not exist yet, could be written later.

    Writes and removes a small file in the nearest folder that exists: what the permissions say is not what a
    read-only or full file system does.

    Args:
        path: what is going to be written.
        need: bytes that are going to be written.

    Raises:
        WriteError: it could not; or fewer than ``need`` bytes are free.
    """
    folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if folder == path.absolute() and folder.is_file():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as err:
        raise write_error(err, path) from err
    free = shutil.disk_usage(folder).free
    if free < need:
        reason = f"it needs {megabytes(need)}, and {megabytes(free)} are free"
        raise WriteError(path, reason, "Free some space, or give another path.")


def write_error(error: OSError, path: Path, written: int = 0) -> WriteError:
    """What to tell a person whose ``path`` could not be written, ``written`` bytes into it."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno not in NO_ROOM:
        return WriteError(path, reason, "Give another path, or change who may write there.")
    after = f", {megabytes(written)} into it" if written else ""
    reason = f"{reason} ({megabytes(_free_bytes(path))} free{after})"
    return WriteError(path, reason, "Free some space, or give another path, and run again.")


def os_error(error: BaseException) -> OSError | None:
    """The ``OSError`` of a full or read-only disk in ``error`` or behind it; None where that is not the cause.

    Libraries wrap it: torch raises a RuntimeError while it handles one, safetensors keeps its number in the text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _REFUSED:
            return seen
        named = re.search(r"\(os error (\d+)\)", str(seen))
        if named and int(named[1]) in _REFUSED:
            return OSError(int(named[1]), os.strerror(int(named[1])))
        seen = seen.__cause__ or seen.__context__
    return None


def _free_bytes(path: Path) -> int:
    """Bytes that are free in the file system of ``path``, which need not exist."""
    folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(folder).free


def megabytes(size: float) -> str:
    """``size`` in bytes as people read it: ``12.3 MB``, ``4.56 GB``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _raise_write_error(error: Exception, path: Path, temporary: Path | None) -> None:
    """Raise ``error`` as a WriteError where a full or read-only disk is behind it; ``temporary`` is still there."""
    if isinstance(error, WriteError):
        raise error.of(path) from error
    if isinstance(error, UserError):
        return
    cause = os_error(error)
    if cause is not None:
        raise write_error(cause, path, 0 if temporary is None else _size(temporary)) from error


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    aside = temporary.with_name(temporary.name + ".old")
    path.replace(aside)
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
