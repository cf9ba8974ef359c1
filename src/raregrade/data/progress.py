"""Showing how far long work is: a bar on a terminal, a plain line now and then in a log. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield ``items`` and show how many of ``total`` are done."""
    return _bar(items, total, description) if sys.stderr.isatty() else _lines(items, total, description)


def _bar(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description, total=total, console=Console(stderr=True), transient=True)


def _lines(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{description}: {done} of {total}", file=sys.stderr, flush=True)
        yield item
