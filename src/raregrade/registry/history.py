"""Who held an alias, and when: MLflow forgets, so a tag of the registered model remembers.

Pure functions on a list of entries and its JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from raregrade.errors import RegistryError

HISTORY_TAG = "raregrade.history"
# MLflow's column for these tags has 5,000 characters; the oldest entries go first.
_MAX_CHARACTERS = 4900


@dataclass(frozen=True)
class Move:
    """One move of an alias.

    Attributes:
        alias: which one.
        action: a promotion or a rollback.
        version: what the alias points to since.
        previous: what it pointed to before; None where it did not exist.
        at: UTC, ISO 8601, to the second.
        by: login name.
    """

    alias: str
    action: Literal["promote", "rollback"]
    version: str
    previous: str | None
    at: str
    by: str


def read_history(text: str | None) -> list[Move]:
    """Moves, oldest first, from the tag's value. Raises RegistryError where the tag was changed by hand."""
    try:
        return [Move(**entry) for entry in json.loads(text or "[]")]
    except (TypeError, ValueError) as err:
        raise RegistryError(
            f"the tag {HISTORY_TAG} of the registered model is not readable: {err}. Delete it."
        ) from err


def write_history(moves: Sequence[Move]) -> str:
    """The tag's value, without the oldest moves where it would be too long."""
    entries = [asdict(move) for move in moves]
    while len(text := json.dumps(entries, separators=(",", ":"))) > _MAX_CHARACTERS:
        del entries[0]
    return text


def versions_before(moves: Sequence[Move], alias: str, current: str | None) -> list[str]:
    """Versions to which ``alias`` can be rolled back, the last one first.

    A rollback takes one promotion back, so rolling back again goes one further. Where ``current`` is not
    what the last move left, somebody moved the alias by other means, and the last known holder comes first.
    """
    stack: list[str] = []
    holder: str | None = None
    for move in moves:
        if move.alias != alias:
            continue
        if move.action == "promote":
            if move.previous is not None:
                stack.append(move.previous)
        elif stack:
            stack.pop()
        holder = move.version
    if holder is not None and holder != current:
        stack.append(holder)
    return [version for version in stack[::-1] if version != current]
