"""Pictures of predictions and comparisons as PNG files.

Drawn with matplotlib's object interface alone: no pyplot, no global state, no display. Colours are Okabe and Ito's,
told apart by readers with colour vision deficiency, and never the only mark of a difference. The functions take
plain arrays and computed numbers; nothing is computed here but curves and positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from raregrade.evaluation.calibration import Reliability
from raregrade.evaluation.naming import metric_name

DPI = 150
INK, MUTED, GRID = "#1b2733", "#5f6f7f", "#e3e8ed"
# Okabe & Ito (2008), without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5F6F7F", "#8C510A")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
# Above this many classes one curve a class can no longer be told from the next.
MAX_CURVES = 8
_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#d6e6f2", "#7fb3d8", "#2b7bba", "#084a80"])


def draw_confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """The confusion matrix [K, K]: each cell its count and, below, its share of the actual class (also its colour)."""
    k = len(classes)
    cell = 0.95 if k <= 6 else 0.72 if k <= 12 else 0.56
    size = max(3.2, k * cell)
    figure = Figure(figsize=(size + 1.9, size + 0.7), layout="constrained")
    axes = figure.add_subplot()
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    image = axes.imshow(share, cmap=_BLUES, vmin=0, vmax=1)
    font = 11 if k <= 6 else 8.5 if k <= 12 else 7.5
    for i in range(k):
        for j in range(k):
            # Empty cells of a large matrix only hide the others.
            if matrix[i, j] == 0 and k > 6:
                continue
            colour = "white" if share[i, j] > 0.55 else INK
            # Inside the axes: left out of the layout, which would measure every cell several times.
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
            axes.text(j, i - 0.12, f"{matrix[i, j]}", fontsize=font, **style)
            axes.text(j, i + 0.24, f"{share[i, j]:.0%}", fontsize=font * 0.72, alpha=0.85, **style)
    names = [_name(c, 22 if k <= 6 else 16) for c in classes]
    crowded = max(map(len, names)) * k > 40
    axes.set_xticks(range(k), names, rotation=40 if crowded else 0, ha="right" if crowded else "center")
    if crowded:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.set_yticks(range(k), [_name(c, 30) for c in classes])
    between = np.arange(1, k) - 0.5
    axes.hlines(between, -0.5, k - 0.5, color="white", linewidth=1.5)
    axes.vlines(between, -0.5, k - 0.5, color="white", linewidth=1.5)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Actual")
    _style(axes, frame=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, ticks=[0, 0.5, 1], format=lambda v, _: f"{v:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=MUTED)
    bar.set_label("Share of the actual class", fontsize=9, color=MUTED)
    _save(figure, path)


def draw_per_class(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """F1 and AUROC of each class with intervals. ``rows``: class, support, f1, auroc (numbers or None), *_interval."""
    figure = Figure(figsize=(8.0, 1.25 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (metric, colour, title) in zip(
        panels, (("f1", PALETTE[0], "F1"), ("auroc", PALETTE[2], "AUROC, one class against the rest")), strict=True
    ):
        for y, row in enumerate(rows):
            value, low_high = row[metric], row[f"{metric}_interval"]
            if value is None:
                panel.text(0.02, y, "undefined", va="center", fontsize=8.5, color=MUTED, style="italic")
                continue
            panel.barh(y, value, height=0.62, color=colour, alpha=0.85, zorder=2)
            end = value
            if low_high is not None:
                panel.plot(low_high, (y, y), color=INK, linewidth=1.3, zorder=3, solid_capstyle="butt")
                end = max(value, low_high[1])
            panel.text(end + 0.015, y, f"{value:.2f}", va="center", fontsize=8.5, color=INK)
        if metric == "auroc":
            panel.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        panel.set_xlim(0, 1.12)
        panel.set_xticks(np.linspace(0, 1, 6))
        panel.set_title(title, fontsize=10.5, color=INK, loc="left")
        _style(panel)
    panels[0].set_yticks(range(len(rows)), [f"{_name(r['class'], 26)}  ({r['support']})" for r in rows])
    panels[0].invert_yaxis()
    _save(figure, path)


def draw_roc(targets: npt.NDArray[np.bool_], probs: npt.NDArray[Any], areas: Mapping[str, float], path: Path) -> None:
    """ROC curves, one class against the rest.

    Args:
        targets, probs: [N, K'] of the K' classes to draw, in the order of ``areas``; NaN in ``probs`` = leave out.
        areas: class → AUROC, for the legend.
        path: the PNG to write.
    """
    figure = Figure(figsize=(5.4, 4.9), layout="constrained")
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for i, (name, area) in enumerate(areas.items()):
        known = ~np.isnan(probs[:, i])
        false_rate, true_rate = _roc_curve(targets[known, i], probs[known, i])
        axes.plot(false_rate, true_rate, color=PALETTE[i], linewidth=1.8, label=f"{_name(name, 24)}  {area:.3f}")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.set_xlabel("False positive rate")
    axes.set_ylabel("True positive rate")
    legend = axes.legend(loc="lower right", title="AUROC", fontsize=8.5, title_fontsize=8.5, framealpha=0.92)
    legend.get_frame().set_edgecolor(GRID)
    _style(axes, grid="both")
    _save(figure, path)


def draw_reliability(reliability: Reliability, path: Path) -> None:
    """Observed frequency against predicted probability by bin, and how many predictions lie in each bin."""
    figure = Figure(figsize=(5.4, 4.9), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    filled = reliability.counts > 0
    edges = np.linspace(0, 1, len(reliability.counts) + 1)
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.03, 0.09, "calibrated", rotation=38, fontsize=8.5, color=MUTED, rotation_mode="anchor")
    axes.plot(reliability.confidence[filled], reliability.observed[filled], color=PALETTE[0], linewidth=1.6, zorder=2)
    axes.scatter(
        reliability.confidence[filled],
        reliability.observed[filled],
        s=18 + 120 * reliability.counts[filled] / reliability.counts.max(),
        color=PALETTE[0],
        edgecolor="white",
        zorder=3,
    )
    axes.set_ylabel(reliability.observed_name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    error = f"Expected calibration error {reliability.error:.3f}"
    axes.text(0.98, 0.04, error, ha="right", fontsize=9, color=INK, transform=axes.transAxes)
    below.bar(edges[:-1], reliability.counts, width=np.diff(edges), align="edge", color=PALETTE[4], edgecolor="white")
    below.set_xlabel(reliability.confidence_name)
    below.set_ylabel(reliability.unit)
    _style(axes, grid="both")
    _style(below, grid="y")
    _save(figure, path)


def draw_forest(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], baseline: str, path: Path) -> None:
    """Mean and interval of each loss, one panel a metric; small rings are single seeds.

    Args:
        rows: one a loss: ``loss``, ``winner`` (bool), ``metrics``: metric → {mean, low, high, per_seed}.
        metrics: the panels, keys of ``metrics`` such as ``val_qwk``.
        baseline: the loss whose mean is drawn as a line through each panel.
        path: the PNG to write.
    """
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    height = 0.75 + 0.36 * len(rows)
    figure = Figure(figsize=(3.3 * columns + 1.2, height * lines + 0.3), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        for y, row in enumerate(rows):
            value = row["metrics"].get(metric)
            if value is None:
                continue
            colour = PALETTE[1] if row["winner"] else PALETTE[0]
            if value["low"] is not None:
                panel.plot((value["low"], value["high"]), (y, y), color=colour, linewidth=2.2, solid_capstyle="round")
            seeds = list(value["per_seed"].values())
            if len(seeds) > 1:
                panel.plot(seeds, [y] * len(seeds), "o", markersize=4, markerfacecolor="white", markeredgecolor=colour)
            panel.plot(value["mean"], y, "D" if row["winner"] else "o", color=colour, markersize=7, zorder=4)
        reference = next((r["metrics"].get(metric) for r in rows if r["loss"] == baseline), None)
        if reference is not None:
            panel.axvline(reference["mean"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        panel.set_title(_name(metric_name(metric), 40), fontsize=10.5, color=INK, loc="left")
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.locator_params(axis="x", nbins=5)
        _style(panel)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_yticks(range(len(rows)), [_name(r["loss"], 26) for r in rows])
        for label, row in zip(panel.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row["winner"] else "normal")
    _save(figure, path)


def draw_class_f1(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], split: str, path: Path) -> None:
    """F1 of each class by loss with intervals. ``rows`` as for ``draw_forest``."""
    step = 0.8 / len(rows)
    figure = Figure(figsize=(7.6, 1.3 + len(classes) * max(0.34, 0.17 * len(rows))), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        axes.plot([], [], marker, color=colour, markersize=6, label=_name(row["loss"], 26))
        for y, name in enumerate(classes):
            value = row["metrics"].get(f"{split}_f1_{name}")
            if value is None:
                continue
            at = y + (i - (len(rows) - 1) / 2) * step
            if value["low"] is not None:
                axes.plot((value["low"], value["high"]), (at, at), color=colour, linewidth=1.6, alpha=0.7)
            axes.plot(value["mean"], at, marker, color=colour, markersize=5.5)
    for y in range(1, len(classes)):
        axes.axhline(y - 0.5, color=GRID, linewidth=1)
    axes.set_yticks(range(len(classes)), [_name(c, 30) for c in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"F1 on {split}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(rows)), frameon=False, fontsize=9)
    _style(axes)
    _save(figure, path)


def _roc_curve(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """False and true positive rate at each distinct score, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[ends]
    misses = ends + 1 - hits
    return np.append(0.0, misses / max(1, misses[-1])), np.append(0.0, hits / max(1, hits[-1]))


def _name(text: str, limit: int) -> str:
    """A class or loss name that fits: cut in the middle, and with no character read as mathematics."""
    if len(text) > limit:
        keep = limit - 1
        text = f"{text[: keep - keep // 3]}…{text[len(text) - keep // 3 :]}"
    return text.replace("$", r"\$")


def _style(axes: Axes, *, grid: str = "x", frame: bool = True) -> None:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(frame and side in ("left", "bottom"))
        axes.spines[side].set_color("#b8c2cc")
    axes.tick_params(axis="both", colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.set_axisbelow(True)
    if frame:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def _save(figure: Figure, path: Path) -> None:
    # Without metadata the same numbers give the same bytes under one matplotlib.
    figure.savefig(path, dpi=DPI, facecolor="white", format="png", metadata={"Software": None})
