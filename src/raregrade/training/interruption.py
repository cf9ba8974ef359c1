"""Turning SIGINT and SIGTERM into a flag that the training loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether the process was asked to stop. A second SIGINT stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def watch_for_interruption() -> Iterator[Interruption]:
    """Catch both signals while the block runs. Outside the main thread, where that is impossible, nothing is caught."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interruption.handle) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
