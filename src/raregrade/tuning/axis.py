"""The axis of a searched parameter in a picture: where a value lies on it, and which ticks it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis
from matplotlib.ticker import MaxNLocator

from raregrade.evaluation.figures import INK, MUTED
from raregrade.schema import Choice, Space


@dataclass(frozen=True)
class Axis:
    """A parameter's values as fractions of an axis, 0 to 1."""

    low: float
    high: float
    log: bool
    choices: tuple[object, ...] = ()

    @classmethod
    def of(cls, space: Space, values: pd.Series) -> Axis:
        """The axis of ``space``, widened to enqueued ``values`` outside of it."""
        known = values.dropna()
        if isinstance(space, Choice):
            choices = tuple(dict.fromkeys((*space.choices, *known)))
            return cls(0.0, max(1.0, len(choices) - 1.0), log=False, choices=choices)
        low = min(float(space.low), *(float(v) for v in known))
        high = max(float(space.high), *(float(v) for v in known))
        return cls(low, high, space.log and low > 0)

    def fraction(self, values: pd.Series) -> npt.NDArray[np.float64]:
        """Where ``values`` lie; NaN where a trial has no such value."""
        if self.choices:
            index = {choice: float(i) for i, choice in enumerate(self.choices)}
            return self._fraction(np.array([index.get(value, np.nan) for value in values]))
        return self._fraction(values.to_numpy(dtype=np.float64))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Fractions and labels of a few round values."""
        if self.choices:
            return list(self._fraction(np.arange(len(self.choices), dtype=np.float64))), [
                plain_text(str(c)) for c in self.choices
            ]
        at = round_values(self.low, self.high, log=self.log)
        return list(self._fraction(np.array(at, dtype=np.float64))), [f"{value:g}" for value in at]

    def label(self, axis: XAxis) -> None:
        """Set the ticks of an axis that runs from 0 to 1."""
        at, names = self.ticks()
        axis.set_ticks(at, labels=names)

    def write(self, axes: Axes, x: int) -> None:
        """Draw this axis upright at ``x``."""
        axes.axvline(x, color="#b8c2cc", linewidth=1, zorder=2.5)
        box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        for at, name in zip(*self.ticks(), strict=True):
            axes.plot([x - 0.03, x], [at, at], color=MUTED, linewidth=1, zorder=3)
            axes.text(x - 0.05, at, name, ha="right", va="center", fontsize=8.5, color=INK, bbox=box, zorder=4)

    def _fraction(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        low, high = (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)
        scaled = np.log(numbers) if self.log else numbers
        return np.asarray((scaled - low) / (high - low) if high > low else np.full(len(numbers), 0.5) + 0 * numbers)


def round_values(low: float, high: float, *, log: bool) -> list[float]:
    """A few round numbers from ``low`` to ``high``, for ticks; the number itself where both are one."""
    if low == high:
        return [float(f"{low:.4g}")]
    if not log:
        ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(f"{tick:.6g}") for tick in ticks if low <= tick <= high]
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    # Over many decades powers of ten are enough; over few they are too far apart.
    steps = (1, 2, 5) if np.log10(high / low) < 2.5 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [float(f"{tick:.6g}") for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def plain_text(text: str) -> str:
    """``text`` without anything that matplotlib reads as mathematics."""
    return text.replace("$", r"\$")
