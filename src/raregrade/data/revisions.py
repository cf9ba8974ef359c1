"""Raw data at a DVC revision: fetched once into a folder that outlives the task, checked file by file.

Reads the repository at the revision itself, with neither a checkout nor a git program. What is fetched lies in
``<store>/raw/<md5>/<name>``: the md5 is DVC's own, so two revisions with the same data share one copy. An interrupted
fetch leaves ``.<md5>.part`` beside it, from which the next one goes on. What the data mean is ``sources``' business.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import filelock

from raregrade.data.progress import track
from raregrade.errors import DataError

_FOLDER = "raw"
_DOWNLOADS = 8
# Another task of the same run may be fetching the same data; hours are what a large dataset takes.
_LOCK_SECONDS = 12 * 3600.0
_ADVICE = (
    "Check repository, revision and path, and that the credentials of its remote are in the environment "
    "(for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server of your own, AWS_ENDPOINT_URL_S3)."
)


@dataclass(frozen=True)
class RawData:
    """Raw data at one revision.

    Attributes:
        path: where they lie, absolute.
        md5: DVC's md5 of the file or folder (a folder's ends in ``.dir``); empty where DVC does not track it.
        revision: the git commit, or the name that was given where there is no repository.
        files: number of files.
        size: bytes.
        repo: where the repository is, without a password; empty for data that were there already.
    """

    path: Path
    md5: str
    revision: str
    files: int
    size: int
    repo: str = ""


def describe_local(path: Path, *, md5: str = "", revision: str = "") -> RawData:
    """Raw data that lie at ``path`` already, such as on a mounted volume. Raises DataError where nothing does."""
    if not path.exists():
        raise DataError(f"there are no raw data at {path}. Mount the volume that holds them, or give their repository.")
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return RawData(path.absolute(), md5, revision or md5, len(files), sum(file.stat().st_size for file in files))


def fetch_revision(repo: str, path: str, revision: str, store: Path) -> RawData:
    """Bring what DVC tracks as ``path`` at ``revision`` of ``repo`` into ``store``, unless it is there already.

    Args:
        repo: URL or folder of the git repository.
        path: of the file or folder within it.
        revision: a commit, tag or branch; empty means the repository's default branch.
        store: folder that outlives the task, shared between runs. The credentials of the DVC remote come from the
            environment, as its own client reads them.

    Raises:
        DataError: no such repository, revision or path; DVC does not track it; the remote refuses, or lacks a file;
            a file differs from what DVC recorded.
    """
    with _open(repo, revision) as tree:
        commit = _commit(tree, revision)
        with _as_data_error(repo, path, commit):
            info = tree.info(path)
            tracked = info.get("dvc_info") or {}
            md5 = str(tracked.get("md5") or "")
            if not md5:
                raise DataError(
                    f"{path} is not tracked by DVC at revision {commit[:12]} of {masked(repo)}. "
                    f"Track it with `dvc add {path}`, commit, and push both."
                )
        target = (store / _FOLDER / md5.removesuffix(".dir")).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock"), timeout=_LOCK_SECONDS):
            data = target / PurePosixPath(path).name
            if not data.exists():
                with _as_data_error(repo, path, commit):
                    listing = _listing(tree, path, info)
                _fetch(tree, listing, target, data.name, where=(repo, path, commit))
        found = describe_local(data)
    return RawData(data, md5, commit, found.files, found.size, masked(repo))


def masked(repo: str) -> str:
    """``repo`` without the user name and password that a URL may hold."""
    parts = urlsplit(repo)
    return repo.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else repo


@contextmanager
def _open(repo: str, revision: str) -> Iterator[Any]:
    """DVC's file system of ``repo`` at ``revision``."""
    try:
        from dvc.api import DVCFileSystem
    except ImportError as err:
        raise DataError(
            "fetching a revision needs DVC, which is not installed: `pip install 'raregrade[data]'`."
        ) from err
    # DVC's own place for caches is shared by all users of a machine, and read-only in a container.
    with tempfile.TemporaryDirectory(prefix="raregrade-dvc-") as caches:
        with _as_data_error(repo, "", revision), _a_user_name():
            tree = DVCFileSystem(repo, rev=revision or None, config={"core": {"site_cache_dir": caches}})
            tree.info("/")
        try:
            yield tree
        finally:
            tree.close()


@contextmanager
def _a_user_name() -> Iterator[None]:
    """DVC asks for the name of the user, which a container's user id may not have."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = "raregrade"
        try:
            yield
        finally:
            del os.environ["LOGNAME"]
    else:
        yield


def _commit(tree: Any, revision: str) -> str:
    return str(tree.repo.get_rev() or revision)


def _listing(tree: Any, path: str, info: dict[str, Any]) -> dict[str, str]:
    """Path within the repository to md5, of every file."""
    if info["type"] != "directory":
        return {path: str(info["dvc_info"]["md5"])}
    found = tree.find(path, detail=True)
    return {name: str((entry.get("dvc_info") or {}).get("md5")) for name, entry in sorted(found.items())}


def _fetch(tree: Any, listing: dict[str, str], target: Path, name: str, *, where: tuple[str, str, str]) -> None:
    """Bring the files of ``listing`` to ``target / name``, which appears when all are there and right."""
    repo, path, commit = where
    part = target.with_name(f".{target.name}.part")
    part.mkdir(exist_ok=True)
    known = {file.relative_to(part).as_posix() for file in part.rglob("*") if file.is_file()}
    wanted = {source: (part / name / _relative(source, path), md5) for source, md5 in listing.items()}
    for stray in known - {file.relative_to(part).as_posix() for file, _ in wanted.values()}:
        (part / stray).unlink()

    def bring(source: str) -> None:
        file, md5 = wanted[source]
        if file.is_file() and _md5(file) == md5:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with _as_data_error(repo, source, commit):
            tree.get_file(source, str(file))
        found = _md5(file)
        if found != md5:
            file.unlink()
            raise DataError(
                f"{source} at revision {commit[:12]} of {masked(repo)} arrived with md5 {found}, DVC recorded {md5}. "
                "Its copy in the remote is broken: push it again from a folder that has it (`dvc push`)."
            )

    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        try:
            for _ in track(pool.map(bring, wanted), len(wanted), "fetching"):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    target.mkdir(exist_ok=True)
    (part / name).replace(target / name)
    part.rmdir()


def _relative(source: str, path: str) -> str:
    """``source`` as seen from ``path``: empty where it is the file ``path`` itself."""
    relative = PurePosixPath(source.lstrip("/")).relative_to(PurePosixPath(path.strip("/")))
    return "" if relative == PurePosixPath() else str(relative)


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _as_data_error(repo: str, path: str, revision: str) -> Iterator[None]:
    """Turn what DVC, git or the remote's client raises into a ``DataError`` that names what was asked for."""
    try:
        yield
    except DataError:
        raise
    except Exception as err:
        reasons: list[str] = []
        cause: BaseException | None = err
        while cause is not None:
            text = " ".join(str(cause).split()) or type(cause).__name__
            reasons += [text] if text not in " ".join(reasons) else []
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        what = f"{path} at revision {revision[:40]} of" if path else f"revision {revision[:40] or 'HEAD'} of"
        said = ": ".join(reasons[:3])[:400].rstrip(".")
        raise DataError(f"cannot fetch {what} {masked(repo)}: {said}. {_ADVICE}") from err
