"""Pictures of a study: how the search went, which parameters matter, and where the good values lie.

Drawn from the study's trial table by matplotlib's object interface alone. Colours are told apart by readers with colour
vision deficiency; the state of a trial and where its values came from also have shapes of their own.

Optuna's own plots show neither pruned trials nor where values came from, and do not mark the best trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raregrade.evaluation.figures import DPI, GRID, INK, MUTED, PALETTE
from raregrade.evaluation.naming import metric_name
from raregrade.schema import Choice, Space
from raregrade.tuning.axis import Axis, plain_text

HISTORY, IMPORTANCE, SLICE, PARALLEL = "history.png", "importance.png", "slice.png", "parallel.png"

COMPLETE, PRUNED = "COMPLETE", "PRUNED"
# Where the values of a trial came from: marker, colour, and what the legend says.
_SOURCES = {
    "sampler": ("o", PALETTE[0], "searched"),
    "default": ("s", PALETTE[1], "settings of params.yaml"),
    "paper": ("D", PALETTE[2], "published settings"),
    "warm_start": ("^", PALETTE[3], "from an earlier study"),
}
# From light to dark and readable in grey; the ends of cividis are too close to white and to black.
_ORDER: Colormap = LinearSegmentedColormap.from_list("order", colormaps["cividis_r"](np.linspace(0.08, 1, 64)))
_PER_LINE = 3
_LEAST_WIDTH = 9  # trials: one or two would be drawn far apart
_LEAST_FOR_IMPORTANCE = 4  # below, any ranking of parameters is chance


def write_figures(
    trials: pd.DataFrame,
    space: Mapping[str, Space],
    folder: Path,
    *,
    objective: str,
    direction: str = "maximize",
) -> list[Path]:
    """Write the four pictures of a study into ``folder``, whatever the study has come to; their paths.

    Args:
        trials: one row a trial: ``number``, ``state`` (COMPLETE | PRUNED | FAIL), ``value`` (the objective; for a
            pruned trial the last one known, or NaN), ``source`` (sampler | default | paper | warm_start) and
            ``params_<name>`` for every name in ``space``. Rows in other states are left out.
        space: what was searched, by parameter.
        folder: exists; gets ``history.png``, ``importance.png``, ``slice.png`` and ``parallel.png``.
        objective: name of the metric, such as ``val_qwk``.
        direction: ``maximize`` or ``minimize``.
    """
    study = _study(trials, space, metric_name(objective), higher_is_better=direction == "maximize")
    drawn = {HISTORY: _history, IMPORTANCE: _importance, SLICE: _slice, PARALLEL: _parallel}
    for name, draw in drawn.items():
        # Without metadata the same numbers give the same bytes under one matplotlib.
        draw(study).savefig(folder / name, dpi=DPI, facecolor="white", format="png", metadata={"Software": None})
    return [folder / name for name in drawn]


def parameter_importance(
    trials: pd.DataFrame, space: Mapping[str, Space], *, direction: str = "maximize"
) -> dict[str, float]:
    """Share of the objective's variance that each parameter explains (fANOVA), the largest first; they sum to 1.

    Empty where finished trials are too few, or too alike, to tell.

    Args:
        trials, space, direction: as for ``write_figures``.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # noqa: PLC0415
    from optuna.study import create_study  # noqa: PLC0415
    from optuna.trial import create_trial  # noqa: PLC0415

    finished = _finished(trials)
    columns = {name: finished[f"params_{name}"] for name in space}
    varied = [name for name, values in columns.items() if values.notna().all() and values.nunique() > 1]
    if len(finished) < _LEAST_FOR_IMPORTANCE or finished["value"].nunique() < 2 or not varied:
        return {}
    distributions = {}
    for name in varied:
        searched = space[name]
        if isinstance(searched, Choice):
            distributions[name] = CategoricalDistribution(tuple(dict.fromkeys((*searched.choices, *columns[name]))))
        else:
            # A value that was enqueued may lie outside of what is searched.
            low, high = min(searched.low, columns[name].min()), max(searched.high, columns[name].max())
            kind = IntDistribution if isinstance(searched.low, int) else FloatDistribution
            distributions[name] = kind(low, high, log=searched.log)
    with _quiet_optuna():
        study = create_study(direction=direction)
        for row in finished.to_dict("records"):
            params = {name: _plain(row[f"params_{name}"]) for name in varied}
            study.add_trial(create_trial(params=params, distributions=distributions, value=float(row["value"])))
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {str(name): float(value) for name, value in found.items() if np.isfinite(value)}


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Nobody asked for the study that is only made to compute with, nor for its experimental interface."""
    from optuna import logging  # noqa: PLC0415

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


@dataclass(frozen=True)
class _Study:
    """What the pictures need: the trials that ended, in order, and what was searched."""

    trials: pd.DataFrame
    space: dict[str, Space]
    metric: str
    higher_is_better: bool

    @property
    def finished(self) -> pd.DataFrame:
        return _finished(self.trials)

    @property
    def best(self) -> pd.Series | None:
        """The best finished trial; None where there is none."""
        finished = self.finished
        if finished.empty:
            return None
        value = finished["value"].to_numpy(dtype=float)
        return finished.iloc[int(value.argmax() if self.higher_is_better else value.argmin())]


def _study(trials: pd.DataFrame, space: Mapping[str, Space], metric: str, *, higher_is_better: bool) -> _Study:
    ended = trials[trials["state"].isin([COMPLETE, PRUNED, "FAIL"])].sort_values("number", ignore_index=True)
    searched = {name: axis for name, axis in space.items() if f"params_{name}" in ended}
    return _Study(ended.assign(value=ended["value"].astype(float)), searched, metric, higher_is_better)


def _finished(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[(trials["state"] == COMPLETE) & np.isfinite(trials["value"].astype(float))]


def _history(study: _Study) -> Figure:
    """Objective over trials, with the best so far."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    finished = study.finished
    if finished.empty:
        _say(axes, "No trial has finished.")
        return figure
    best = finished["value"].cummax() if study.higher_is_better else finished["value"].cummin()
    last = max(study.trials["number"].max(), finished["number"].iloc[-1])
    axes.step(
        [*finished["number"], last], [*best, best.iloc[-1]], where="post", color=INK, linewidth=1.6, label="best so far"
    )
    pruned = study.trials[study.trials["state"] == PRUNED]
    if not pruned.empty:
        axes.plot(pruned["number"], pruned["value"], **_hollow(), label=_counted("pruned, last value", pruned))
    for source, group in _by_source(finished):
        marker, colour, words = _SOURCES[source]
        axes.plot(
            group["number"], group["value"], marker, color=colour, markersize=6.5, markeredgecolor="white", zorder=4,
            markeredgewidth=0.6, label=_counted(words, group),
        )  # fmt: skip
    failed = study.trials[study.trials["state"] == "FAIL"]
    if not failed.empty:
        axes.plot(
            failed["number"], [0.02] * len(failed), "x", color=PALETTE[1], markersize=7, zorder=5,
            label=_counted("failed", failed), transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    axes.set_xlabel("Trial")
    axes.set_ylabel(study.metric)
    axes.set_xlim(-0.6, max(last, _LEAST_WIDTH) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, handletextpad=0.4)
    _style(axes, grid="y")
    return figure


def _importance(study: _Study) -> Figure:
    """Share of the objective's variance by parameter, as bars."""
    direction = "maximize" if study.higher_is_better else "minimize"
    found = parameter_importance(study.trials, study.space, direction=direction)
    figure = Figure(figsize=(6.4, 1.5 + 0.42 * max(2, len(found))), layout="constrained")
    axes = figure.add_subplot()
    if not found:
        count = len(study.finished)
        _say(axes, f"Importance cannot be told from {count} finished trial{'' if count == 1 else 's'}.")
        return figure
    axes.barh(range(len(found)), list(found.values()), height=0.6, color=PALETTE[0])
    for y, value in enumerate(found.values()):
        axes.text(value + 0.015, y, f"{value:.0%}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(found)), [plain_text(name) for name in found])
    axes.set_ylim(max(2, len(found)) - 0.5, -0.5)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    axes.set_xlabel(f"Share of the variance of {study.metric} (fANOVA)")
    _style(axes, grid="x")
    return figure


def _slice(study: _Study) -> Figure:
    """Objective over each parameter, one panel a parameter; darker is later."""
    count = max(1, len(study.space))
    columns = min(_PER_LINE, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(max(4.6, 3.3 * columns + 0.6), 3.1 * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    if study.finished.empty or not study.space:
        _say(panels[0], "No trial has finished." if study.space else "Nothing was searched.")
        for panel in panels[1:]:
            panel.set_visible(False)
        return figure
    norm = Normalize(0, max(1, int(study.trials["number"].max())))
    best = study.best
    for panel, (name, space) in zip(panels, study.space.items(), strict=False):
        column = f"params_{name}"
        axis = Axis.of(space, study.trials[column])
        pruned = study.trials[study.trials["state"] == PRUNED]
        panel.plot(axis.fraction(pruned[column]), pruned["value"], **_hollow())
        for source, group in _by_source(study.finished):
            panel.scatter(
                axis.fraction(group[column]), group["value"], c=group["number"], cmap=_ORDER, norm=norm, s=38, zorder=3,
                marker=_SOURCES[source][0], edgecolor=INK, linewidth=0.5,
            )  # fmt: skip
        if best is not None:
            at = axis.fraction(pd.Series([best[column]]))
            panel.plot(at, [best["value"]], "o", markersize=12, markerfacecolor="none", markeredgecolor=PALETTE[1])
        axis.label(panel.xaxis)
        panel.set_xlim(-0.05, 1.05)
        panel.set_xlabel(plain_text(name) + (" (log scale)" if axis.log else ""))
        _style(panel, grid="both")
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel(study.metric)
    shapes = [_handle(source) for source, _ in _by_source(study.finished)]
    shapes += [Line2D([], [], linestyle="", marker="o", markersize=11, markerfacecolor="none",
                      markeredgecolor=PALETTE[1], label="best")]  # fmt: skip
    if (study.trials["state"] == PRUNED).any():
        shapes += [Line2D([], [], **_hollow(), label="pruned")]
    figure.legend(
        handles=shapes, loc="outside upper left", ncols=2 if columns == 1 else 3, frameon=False, fontsize=9,
        handletextpad=0.4,
    )  # fmt: skip
    bar = figure.colorbar(ScalarMappable(norm, _ORDER), ax=list(panels), shrink=0.8, aspect=35, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=MUTED)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar.set_label("Trial", fontsize=9, color=MUTED)
    return figure


def _parallel(study: _Study) -> Figure:
    """One line a finished trial through its parameters to its objective; the darker, the better."""
    names = list(study.space)
    figure = Figure(figsize=(max(5.6, 1.55 * (len(names) + 1) + 1.4), 4.4), layout="constrained")
    axes = figure.add_subplot()
    finished, best = study.finished, study.best
    if best is None or not names:
        _say(axes, "Nothing was searched." if best is not None else "No trial has finished.")
        return figure
    scales = {name: Axis.of(study.space[name], study.trials[f"params_{name}"]) for name in names}
    values = finished["value"]
    heights = np.column_stack(
        [*(scales[name].fraction(finished[f"params_{name}"]) for name in names), _rescaled(values)]
    )
    low, high = float(values.min()), float(values.max())
    norm = Normalize(low, high) if high > low else Normalize(low - 0.5, low + 0.5)
    better = _ORDER if study.higher_is_better else _ORDER.reversed()
    # The best lines are drawn last, on top.
    for row in np.argsort(values.to_numpy() if study.higher_is_better else -values.to_numpy(), kind="stable"):
        axes.plot(range(len(names) + 1), heights[row], color=better(norm(values.iloc[row])), linewidth=1.3, alpha=0.75)
    of_best = heights[finished["number"].to_numpy() == best["number"]][0]
    words = f"best: trial {best['number']}, {study.metric} {best['value']:.3f}"
    axes.plot(range(len(names) + 1), of_best, color=PALETTE[1], linewidth=2.6, label=words)
    for x, name in enumerate(names):
        scales[name].write(axes, x)
    Axis(low, high, log=False).write(axes, len(names))
    axes.set_xticks(range(len(names) + 1), [*(plain_text(name) for name in names), study.metric])
    axes.set_xlim(-0.35, len(names) + 0.35)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9)
    _style(axes, grid="x", frame=False)
    return figure


def _by_source(trials: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each source, in the order of the legend."""
    source = trials["source"].where(trials["source"].isin(list(_SOURCES)), "sampler")
    return [(name, trials[source == name]) for name in _SOURCES if (source == name).any()]


def _rescaled(values: pd.Series) -> npt.NDArray[np.float64]:
    """From 0 for the smallest to 1 for the largest; 0.5 where all are equal."""
    numbers = values.to_numpy(dtype=float)
    span = float(np.ptp(numbers))
    return np.asarray((numbers - numbers.min()) / span if span > 0 else np.full(len(numbers), 0.5))


def _plain(value: Any) -> Any:
    """A number of numpy as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _counted(words: str, rows: pd.DataFrame) -> str:
    return f"{words} ({len(rows)})"


def _hollow() -> dict[str, Any]:
    """How a pruned trial looks."""
    return {
        "linestyle": "",
        "marker": "v",
        "markersize": 6,
        "markerfacecolor": "white",
        "markeredgecolor": MUTED,
        "markeredgewidth": 1.1,
        "zorder": 2,
    }


def _handle(source: str) -> Line2D:
    """The legend's mark of a source where colour means something else."""
    marker, _, words = _SOURCES[source]
    return Line2D([], [], linestyle="", marker=marker, color=MUTED, markersize=6.5, label=words)


def _say(axes: Axes, words: str) -> None:
    """A picture that says why there is nothing to see."""
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=10.5, color=MUTED, transform=axes.transAxes)
    axes.set_axis_off()


def _style(axes: Axes, *, grid: Literal["both", "x", "y"], frame: bool = True) -> None:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(frame and side in ("left", "bottom"))
        axes.spines[side].set_color("#b8c2cc")
    axes.tick_params(axis="both", which="both", colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.set_axisbelow(True)
    if frame:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)
