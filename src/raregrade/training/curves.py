"""Learning curves as a picture: loss, validation metric and learning rate over the epochs.

Imports matplotlib, so import it when training is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_FILE = "curves.png"
_DPI = 150
# Okabe and Ito's colours, told apart by readers with colour vision deficiency.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_INK, _MUTED, _GRID = "#1b2733", "#5f6f7f", "#e3e8ed"
_MARKERS_UP_TO = 60

Row = dict[str, float]


def write_curves(
    history: Sequence[Row], folder: Path, metric: str, *, best_epoch: int | None = None, stages: Sequence[int] = ()
) -> list[Path]:
    """Draw ``history`` into ``folder``.

    Args:
        history: one row an epoch: ``epoch`` (from 1), ``train_loss``, ``lr`` and ``val_<metric>``. A stage without
            epochs has a row with neither loss nor learning rate.
        folder: exists.
        metric: of validation, which selected the epoch; without ``val_``.
        best_epoch: whose weights were kept; is marked.
        stages: the number of epochs that were done as each later stage began; a line is drawn there.

    Returns:
        The files written.
    """
    rows = list(history)
    if not rows:
        return []
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    losses, values, rates = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
    _draw(losses, rows, stages, ("train_loss", "Training loss", _BLUE))
    _draw(values, rows, stages, (f"val_{metric}", f"Validation {metric}", _ORANGE))
    _draw(rates, rows, stages, ("lr", "Learning rate", _GREEN))
    _mark_best(values, rows, f"val_{metric}", best_epoch)
    for number, done in enumerate(stages, start=2):
        for axes in (losses, values, rates):
            axes.axvline(done + 0.5, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        words: dict[str, Any] = {"transform": losses.get_xaxis_transform(), "fontsize": 8.5, "color": _MUTED}
        losses.text(done + 0.55, 1.02, f"stage {number}", **words)
    rates.set_xlabel("Epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    rates.set_xlim(rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5)
    figure.align_ylabels()
    path = folder / _FILE
    # Without the version of matplotlib in it, the same history gives the same bytes.
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return [path]


def _draw(axes: Axes, rows: Sequence[Row], stages: Sequence[int], line: tuple[str, str, str]) -> None:
    """Draw ``line``, (key, label, colour), anew in each stage."""
    name, label, colour = line
    marker = "o" if len(rows) <= _MARKERS_UP_TO else ""
    for first, last in pairwise((0, *stages, inf)):
        points = [(row["epoch"], row[name]) for row in rows if name in row and first < row["epoch"] <= last]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, marker=marker, markersize=3.2)
    axes.set_ylabel(label, color=_INK, fontsize=9.5)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_MUTED)


def _mark_best(axes: Axes, rows: Sequence[Row], name: str, best_epoch: int | None) -> None:
    value = next((row[name] for row in reversed(rows) if row["epoch"] == best_epoch and name in row), None)
    if best_epoch is None or value is None:
        return
    axes.plot(best_epoch, value, "o", markersize=9, markerfacecolor="none", markeredgecolor=_INK, zorder=4)
    axes.set_title(f"◯ best: {value:.4f} at epoch {best_epoch}", fontsize=9, color=_INK, loc="right")
