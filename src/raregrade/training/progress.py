"""What a person sees while a model trains: a bar on a terminal, one line an epoch in a log."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A ``Reporter`` that writes to standard error, so that standard output stays a command's own."""

    def __init__(self, title: str, metric: str) -> None:
        self.title = title
        self.metric = metric
        self.console = Console(stderr=True, highlight=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.epochs = 0
        self.images = 0
        self.since = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def started(self, *, resumed_at: int, epochs: int, images: int, device: str, precision: str) -> None:
        self.epochs = epochs
        again = f", resumed after epoch {resumed_at}" if resumed_at else ""
        self._line(f"{self.title}: {images} images, {epochs} epochs on {device} in {precision}{again}")
        if sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task(self.title, total=None, rate="")
            self.bar.start()
        self.since = time.monotonic()

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        self.images += images
        if self.bar is not None and self.task is not None:
            rate = self.images / max(1e-9, time.monotonic() - self.since)
            self.bar.update(
                self.task, total=steps * self.epochs, completed=epoch * steps + step, rate=f"{rate:.0f} images/s"
            )

    def epoch(self, row: dict[str, float]) -> None:
        seconds = time.monotonic() - self.since
        rate = self.images / max(1e-9, seconds)
        value = row.get(f"val_{self.metric}", float("nan"))
        self._line(
            f"{self.title}: epoch {row['epoch']:.0f}/{self.epochs}  loss {row['train_loss']:.4f}  "
            f"val {self.metric} {value:.4f}  {rate:.0f} images/s"
        )
        self.images, self.since = 0, time.monotonic()

    def _line(self, text: str) -> None:
        console = self.bar.console if self.bar is not None else self.console
        console.print(text, soft_wrap=True)
