"""What a person sees while a model trains: a bar on a terminal, one line an epoch in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from raregrade.atomic import megabytes
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.training.memory import peak_bytes
from raregrade.training.reporter import Reporter

_SECONDS_BETWEEN_UPDATES = 0.1
# In a log, where an epoch takes longer than this, a line says that work goes on.
_SECONDS_BETWEEN_LINES = 600.0


class TrainingProgress(Reporter):
    """A ``Reporter`` that writes to standard error, so that standard output stays a command's own.

    Images a second are those of training alone; the time that is left counts validation and saving too.
    """

    def __init__(self, title: str, metric: str) -> None:
        self.title = title
        self.metric = metric
        self.console = Console(stderr=True, highlight=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.device = torch.device("cpu")
        self.epochs = 0
        self.done = 0.0  # epochs, with the part of the current one
        self.first = 0  # epochs that an earlier process finished
        self.best: float | None = None
        self.loss: float | None = None
        self._begun = self._epoch_begun = self._last_step = self._told = time.monotonic()
        self._images = 0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def started(
        self, *, resumed_at: int, epochs: int, images: int, device: str, precision: str, processes: int
    ) -> None:
        self.device = torch.device(device)
        self.epochs, self.done, self.first = epochs, float(resumed_at), resumed_at
        many = f" in {processes} processes" if processes > 1 else ""
        again = f", resumed after epoch {resumed_at}" if resumed_at else ""
        self.note(f"{images} images, {epochs} epochs on {device}{many} in {precision}{again}")
        if sys.stderr.isatty():
            self._start_bar()
        self._begun = self._epoch_begun = self._last_step = self._told = time.monotonic()

    def restored(self, history: Sequence[dict[str, float]]) -> None:
        values = [row[f"val_{self.metric}"] for row in history if f"val_{self.metric}" in row]
        if values:
            self.best = min(values) if self.metric in LOWER_IS_BETTER else max(values)

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:
        now = time.monotonic()
        self._images += images
        self._last_step = now
        self.done = epoch + step / steps
        self.loss = loss if loss is not None else self.loss
        if self.bar is not None and (now - self._told >= _SECONDS_BETWEEN_UPDATES or step == steps):
            self._told = now
            self._update_bar(epoch)
        elif self.bar is None and now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            self.note(f"epoch {epoch + 1}/{self.epochs}, step {step}/{steps}  {'  '.join(self._figures())}")

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        self.done = row["epoch"]
        value = row.get(f"val_{self.metric}")
        parts = [f"epoch {row['epoch']:.0f}/{self.epochs}"]
        if "train_loss" in row:
            self.loss = None
            parts.append(f"loss {row['train_loss']:.4f}")
        if value is not None:
            parts.append(f"val {self.metric} {value:.4f}{' (best)' if best else ''}")
            self.best = value if best else self.best
        if "lr" in row:
            parts.append(f"lr {row['lr']:.2e}")
        self.note("  ".join(parts + self._figures()))
        self._images = 0
        self._epoch_begun = self._told = time.monotonic()

    def note(self, text: str) -> None:
        console = self.bar.console if self.bar is not None else self.console
        console.print(f"{self.title}: {text}", soft_wrap=True, markup=False)

    def _figures(self) -> list[str]:
        """Images a second, time left, peak memory, as far as they are known."""
        parts = []
        if self._images and self._last_step > self._epoch_begun:
            parts.append(f"{self._images / (self._last_step - self._epoch_begun):.0f} images/s")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{timedelta(seconds=round(left))} left")
        return [*parts, f"peak {megabytes(peak_bytes(self.device))}"]

    def _seconds_left(self) -> float | None:
        here = self.done - self.first
        if here <= 0:
            return None
        return (time.monotonic() - self._begun) / here * max(0.0, self.epochs - self.done)

    def _start_bar(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self.console,
            transient=True,
            expand=True,
        )
        self.task = self.bar.add_task(f"epoch {self.first + 1}/{self.epochs}", total=self.epochs, figures="")
        self.bar.start()

    def _update_bar(self, epoch: int) -> None:
        if self.bar is None or self.task is None:
            return
        words = [f"loss {self.loss:.3f}"] if self.loss is not None else []
        words += [f"{self.metric} {self.best:.3f}"] if self.best is not None else []
        figures = "  ".join(words + self._figures())
        description = f"epoch {epoch + 1}/{self.epochs}"
        self.bar.update(self.task, completed=self.done, description=description, figures=figures)
