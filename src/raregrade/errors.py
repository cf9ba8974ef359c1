"""The exceptions that raregrade raises on purpose, and the exit code of each.

Whoever catches ``RaregradeError`` catches all of them. Every message names the problem first and
what to do about it second; none of them is shown with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaregradeError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UserError(RaregradeError, ValueError):
    """The input is wrong: a file, a value, a combination of the two."""

    exit_code = 2


class ConfigError(UserError):
    """params.yaml or ``--set`` holds a wrong key, type, value or combination."""


class DataError(UserError):
    """A dataset, manifest or predictions file is wrong. Names the file and the row."""


class ModelError(UserError):
    """A model folder, backbone name or weights file is wrong or missing."""


class RegistryError(UserError):
    """A registered model, version or alias does not exist or cannot be used."""


class GateRefusedError(RaregradeError):
    """The gate refused a promotion."""

    exit_code = 3


class InterruptedRunError(RaregradeError):
    """Work was interrupted and saved; running the same command again resumes it."""

    exit_code = 75


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where one of ``allowed`` is close to ``word``, else the empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
