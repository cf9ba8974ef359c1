"""What the training loop tells, and to whom: nothing here prints, and nothing in the loop knows who listens."""

from __future__ import annotations

from collections.abc import Sequence


class Reporter:
    """Is told how training goes; this base keeps silent. An exception raised by a method ends the training."""

    def started(
        self, *, resumed_at: int, epochs: int, images: int, device: str, precision: str, processes: int
    ) -> None:
        """Training begins, or goes on after epoch ``resumed_at`` (0: from the start)."""

    def restored(self, history: Sequence[dict[str, float]]) -> None:
        """The rows of the epochs that an earlier process of this run has finished; called after ``started``."""

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:
        """``images`` were seen in step ``step`` of ``steps``; ``loss`` is None where reading it would wait."""

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        """An epoch was validated; ``best`` says that it is the best of its stage so far."""

    def note(self, text: str) -> None:
        """Something a person wants to know: the learning rate fell, training stops early."""
