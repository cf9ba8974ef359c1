"""The MLflow database of a project that was moved or copied: it holds the absolute paths of its files.

MLflow makes every local path absolute before it stores it, so relative ones are no way out. A moved database is noticed
when it is opened, and its paths are rewritten by ``raregrade relocate``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raregrade.errors import UserError

ARTIFACTS = "mlartifacts"
# Columns of MLflow's tables that hold where files lie.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_location(database: Path) -> str:
    """Where the files of runs in ``database`` lie: beside it."""
    return (database.parent / ARTIFACTS).as_uri()


def former_locations(database: Path) -> list[str]:
    """The locations that ``database`` gives for its files and that are not beside it; an experiment of the user's own
    may have its files elsewhere, so only folders of the name that raregrade gives count."""
    query = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'"
    with _open(database) as connection:
        found = [location for (location,) in connection.execute(query)]
    return [where for where in found if _path(where).name == ARTIFACTS and not _is_beside(_path(where), database)]


def check_in_place(database: Path) -> None:
    """Raise UserError where ``database`` was moved or copied and still names the files where they were."""
    former = former_locations(database)
    if former:
        raise UserError(
            f"this project was moved or copied: {database.name} names the files of its runs below "
            f"{_path(former[0]).parent}, and lies in {database.parent}. `raregrade relocate` brings it up to date."
        )


def relocate(database: Path) -> int:
    """Rewrite the paths of a moved ``database``, all or none; how many rows changed."""
    new = artifact_location(database)
    changed = 0
    former = former_locations(database)
    with _open(database) as connection:
        for old in former:
            for table, column in _COLUMNS:
                for before, after in ((old, new), (str(_path(old)), str(_path(new)))):
                    done = connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names from above
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                    )
                    changed += done.rowcount
    return changed


@contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        yield connection


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))


def _is_beside(folder: Path, database: Path) -> bool:
    here = database.parent / ARTIFACTS
    return folder == here or folder.resolve() == here.resolve()
