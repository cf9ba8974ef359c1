"""Limits of confidence intervals by formula: shares of images, F1, AUROC, and other metrics on a scale of their own.

Each takes what a patient contributes and knows no task, model or file; which metric gets which interval is
``intervals``'s. That they cover what they say is measured by ``benchmarks/verdict.py``.

Shape legend: G groups (patients).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-12
_BISECTIONS = 60
# Near an AUROC of 1 the few pairs that are lost decide the variance over patients, and often there is none among them.
# It is taken as at least this share of what the formula says for independent images (measured by simulation).
_LEAST_VARIANCE = 0.15


def wilson(hits: npt.NDArray[Any], trials: npt.NDArray[Any], confidence: float) -> tuple[float, float]:
    """Limits of sum(hits) / sum(trials) where the trials of a group are alike; they hold at 0 and at 1.

    Wilson's score interval (J. Am. Stat. Assoc. 22 (1927), 209) on an effective number of trials: n divided by the
    design effect (Kish, Survey Sampling, 1965), the variance of the ratio over groups beside that of n independent.

    Args:
        hits, trials: [G], of each group; at least one trial in all.
        confidence: such as 0.95.
    """
    hits, trials = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    hits, trials = hits[trials > 0], trials[trials > 0]
    n, share = trials.sum(), hits.sum() / trials.sum()
    # All trials of a group alike: no fewer than this many independent ones, and no more than there are.
    least = n / _design_effect_at_most(trials)
    effective = least
    if 0 < share < 1 and len(trials) > 1:
        scale = len(trials) / (len(trials) - 1)
        variance = scale * ((hits - share * trials) ** 2).sum() / n**2
        effective = min(max(share * (1 - share) / variance, least), n) if variance > 0 else n
    z = t_quantile(math.inf, confidence)
    middle = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    reach = z / (1 + z**2 / effective) * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def f1_limits(hits: npt.NDArray[Any], involved: npt.NDArray[Any], confidence: float) -> tuple[float, float]:
    """Limits of F1; they hold at 0 and at 1.

    F1 = 2 J / (1 + J) rises with J = TP / (TP + FP + FN), a share of images: Wilson's interval of J, transformed.

    Args:
        hits: [G], true positives of each group.
        involved: [G], true positives, false positives and false negatives together; at least one in all.
        confidence: such as 0.95.
    """
    low, high = wilson(hits, involved, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def auroc_limits(
    value: float, left_out: Floats, positives: npt.NDArray[Any], negatives: npt.NDArray[Any], confidence: float
) -> tuple[float, float]:
    """Limits of the AUROC of one class; they hold at 1.

    The true values that lie within a quantile of t times *their* standard error of the estimate: what Wilson's interval
    is for a share (Newcombe, Stat. Med. 25 (2006), 559, method 5). How the variance depends on the true value is the
    formula of Hanley and McNeil (Radiology 143 (1982), 29); its size is that of the jackknife over groups.

    Args:
        value: the AUROC.
        left_out: [G], the AUROC without each group; NaN where it is undefined.
        positives, negatives: [G], images of each group with the class and without; at least one of each in all.
        confidence: such as 0.95.
    """
    left_out = left_out[~np.isnan(left_out)]
    several = max(_design_effect_at_most(positives), _design_effect_at_most(negatives))
    m, n = float(positives.sum()), float(negatives.sum())
    expected, df = _hanley_mcneil(value, m, n), math.inf
    ratio = several
    if len(left_out) > 1:
        variance = float(((left_out - left_out.mean()) ** 2).sum() * (len(left_out) - 1) / len(left_out))
        df = jackknife_df(left_out)
        if variance > _ROUNDING**2 and expected > 0:
            ratio = min(max(variance / expected, _LEAST_VARIANCE), several)
    reach = t_quantile(df, confidence) ** 2 * ratio

    def beyond(true: float) -> bool:
        return (value - true) ** 2 > reach * _hanley_mcneil(true, m, n)

    return _boundary(beyond, 0.0, value), _boundary(beyond, 1.0, value)


def scaled_limits(
    name: str, value: float, standard_error: float, df: float, confidence: float
) -> tuple[float, float] | None:
    """t interval of metric ``name`` on the scale on which it is nearer to normal; None where the value is at an end.

    Fisher's z for kappa, the logarithm for an error, the logit for what lies between 0 and 1.
    """
    scale = _SCALES["log" if name == "mae" else "fisher" if name == "qwk" else "logit"]
    if standard_error <= _ROUNDING or not scale.inside(value):
        return None
    reach = t_quantile(df, confidence) * standard_error * scale.slope(value)
    low, high = sorted((scale.back(scale.to(value) - reach), scale.back(scale.to(value) + reach)))
    return low, high


def jackknife_df(left_out: Floats) -> float:
    """Degrees of freedom of the jackknife variance of ``left_out`` [G], from the fourth moment of its terms.

    The variance is a sum of squares u²; 2 V² / Var(V) with Var(V) = sum of u⁴ - V²/G (Satterthwaite). At most G - 1.
    """
    terms = (left_out - left_out.mean()) ** 2
    total = terms.sum()
    spread = (terms**2).sum() - total**2 / len(terms)
    most = max(len(terms) - 1.0, 1.0)
    return most if spread <= 0 else float(min(most, max(1.0, 2 * total**2 / spread)))


@lru_cache(maxsize=4096)
def t_quantile(df: float, confidence: float) -> float:
    """Half-width of a two-sided interval in standard errors; ``df`` below 1 counts as 1, infinite is the normal."""
    from scipy.special import ndtri, stdtrit  # noqa: PLC0415 - takes a second

    share = (1 + confidence) / 2
    return float(ndtri(share) if math.isinf(df) else stdtrit(max(df, 1.0), share))


@dataclass(frozen=True)
class _Scale:
    """A scale on which a metric is nearer to normal."""

    kind: str

    def inside(self, value: float) -> bool:
        return {"logit": 0 < value < 1, "fisher": -1 < value < 1, "log": value > 0}[self.kind]

    def to(self, value: float) -> float:
        if self.kind == "logit":
            return math.log(value / (1 - value))
        return math.atanh(value) if self.kind == "fisher" else math.log(value)

    def slope(self, value: float) -> float:
        if self.kind == "logit":
            return 1 / (value * (1 - value))
        return 1 / (1 - value**2) if self.kind == "fisher" else 1 / value

    def back(self, value: float) -> float:
        if self.kind == "logit":
            return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        return math.tanh(value) if self.kind == "fisher" else math.exp(min(value, 700.0))


_SCALES = {kind: _Scale(kind) for kind in ("logit", "fisher", "log")}


def _design_effect_at_most(sizes: npt.NDArray[Any]) -> float:
    """The design effect if all images of a group were alike; ``sizes`` [G] are images of each group, not all 0."""
    return float((sizes.astype(np.float64) ** 2).sum() / sizes.sum())


def _hanley_mcneil(area: float, positives: float, negatives: float) -> float:
    """Variance of an AUROC of independent images (Hanley and McNeil 1982, eq. 2)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    pairs = (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return (area * (1 - area) + pairs) / (positives * negatives)


def _boundary(beyond: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where ``beyond`` turns from true at ``outside`` to false at ``inside``; ``inside`` where it is true nowhere."""
    for _ in range(_BISECTIONS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if beyond(middle) else (outside, middle)
    return inside
