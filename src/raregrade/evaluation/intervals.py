"""Confidence intervals of one model's metrics over patients, and where there are too few patients to give one.

Proportions (accuracy, recall, precision, specificity) have Wilson's interval (J. Am. Stat. Assoc. 22 (1927), 209) on an
effective number of images: the images of a patient agree, so n is divided by the design effect (Kish, Survey Sampling,
1965), and the interval holds at 0 and 1. The other metrics have a t interval from the jackknife over patients, on a
scale on which they are nearer to normal: logit for AUROC and F1, Fisher's z for kappa. Its degrees of freedom come from
the spread of the jackknife's own terms, since a metric that hangs on eight patients has the precision of eight, however
many others there are. A metric of one class is given no interval below ``FEWEST_POSITIVES`` patients with the class.

Shape legend: N images, K classes, G groups (patients), F counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.jackknife import group_numbers, leave_one_out
from raregrade.evaluation.metrics import compute_metrics, counts_per_group, predictions_of
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]
# Patients with the class below which intervals that hang on it cover too rarely (`benchmarks/verdict.py`).
FEWEST_POSITIVES = 8
TOO_FEW = "too few"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MetricInterval:
    """An interval, or why there is none.

    Attributes:
        low, high: None where there is no interval.
        method: ``wilson`` or ``jackknife``; ``too few`` where too few patients have the class, ``no spread`` where no
            patient changes the value, as where two classes are separated perfectly.
        positives: patients with the class; None for a metric of all classes, where it is those of the rarest class.
    """

    low: float | None
    high: float | None
    method: str
    positives: int | None = None


def model_intervals(
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    label_space: LabelSpace,
    decision: Decision | None = None,
    *,
    confidence: float = 0.95,
) -> dict[str, MetricInterval]:
    """Intervals of every metric of ``compute_metrics``, and of ``recall_<class>`` and ``precision_<class>``.

    For ``multilabel`` also ``specificity_<class>``.

    Args:
        targets: [N] or [N, K]; probs: [N, K].
        groups: [N] names of patients.
        label_space: the task and its K classes.
        decision: how probabilities become predictions; the task's default where None.
        confidence: of the intervals.
    """
    values = compute_metrics(targets, probs, label_space, decision)
    left_out = leave_one_out(targets, probs, groups, label_space, decision)
    positives = positive_groups(targets, groups, label_space)
    shares = _shares(targets, probs, groups, label_space, decision)
    found: dict[str, MetricInterval] = {}
    for name, value in values.items():
        own = class_of_metric(name, label_space)
        patients = None if own is None else positives[own]
        if name in shares:
            found[name] = _wilson_interval(*shares[name], patients, confidence)
        elif not enough_patients(name, positives, label_space):
            found[name] = MetricInterval(None, None, TOO_FEW, patients)
        else:
            found[name] = _jackknife_interval(name, value, left_out[name], patients, confidence)
    for name, (hits, trials) in shares.items():
        own = class_of_metric(name, label_space)
        if own is not None and trials.sum():
            found[name] = _wilson_interval(hits, trials, positives[own], confidence)
    return found


def positive_groups(targets: npt.NDArray[Any], groups: npt.NDArray[Any], label_space: LabelSpace) -> dict[str, int]:
    """Number of groups (patients) with at least one image of each class."""
    names = np.asarray(groups).astype(str)
    columns = targets == 1 if targets.ndim == 2 else targets[:, None] == np.arange(label_space.num_classes)
    return {name: len(set(names[columns[:, i]])) for i, name in enumerate(label_space.classes)}


def enough_patients(name: str, positives: Mapping[str, int], label_space: LabelSpace) -> bool:
    """Whether metric ``name`` (without split) rests on enough patients of the class, or of the rarest, for an interval.

    Args:
        name: as in ``compute_metrics``.
        positives: patients with each class, of ``positive_groups``.
        label_space: the task and its K classes.
    """
    if name in _OF_ALL_IMAGES:
        return True
    own = class_of_metric(name, label_space)
    count = min((n for n in positives.values() if n), default=0) if own is None else positives[own]
    return count >= FEWEST_POSITIVES


def class_of_metric(name: str, label_space: LabelSpace) -> str | None:
    """The class that metric ``name`` (without split) is about; None for a metric of all classes."""
    if name == "auroc_weighted" and "weighted" not in label_space.classes:
        return None
    for prefix in _PER_CLASS:
        if name.startswith(prefix) and name.removeprefix(prefix) in label_space.classes:
            return name.removeprefix(prefix)
    return None


def wilson(hits: npt.NDArray[Any], trials: npt.NDArray[Any], confidence: float) -> tuple[float, float]:
    """Wilson's interval of sum(hits) / sum(trials) where the trials of a group are alike.

    Args:
        hits, trials: [G], of each group; at least one trial in all.
        confidence: of the interval.
    """
    hits, trials = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    hits, trials = hits[trials > 0], trials[trials > 0]
    n, share = trials.sum(), hits.sum() / trials.sum()
    # All images of a patient alike: no fewer than this many independent ones, and no more than there are.
    least = n**2 / (trials**2).sum()
    effective = least
    if 0 < share < 1 and len(trials) > 1:
        scale = len(trials) / (len(trials) - 1)
        variance = scale * ((hits - share * trials) ** 2).sum() / n**2
        if variance > 0:
            effective = min(max(share * (1 - share) / variance, min(least, n)), n)
    z = _t_quantile(confidence, max(len(trials) - 1.0, 1.0)) if len(trials) < 30 and least < n else _z(confidence)
    middle = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    reach = z / (1 + z**2 / effective) * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def scaled_limits(
    name: str, value: float, standard_error: float, df: float, confidence: float
) -> tuple[float, float] | None:
    """t interval of metric ``name`` on the scale on which it is nearer to normal; None where the value is at an end."""
    scale = _scale_of(name)
    if standard_error <= _ROUNDING or not scale.inside(value):
        return None
    reach = _t_quantile(confidence, max(df, 1.0)) * standard_error * scale.slope(value)
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


# Metrics that no single class dominates: they have intervals however rare the rarest class.
_OF_ALL_IMAGES = frozenset({"qwk", "mae", "accuracy", "violation_rate", "auroc_weighted"})
_PER_CLASS = ("f1_", "auroc_", "recall_", "precision_", "specificity_")


def _shares(
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    space: LabelSpace,
    decision: Decision | None,
) -> Mapping[str, tuple[Floats, Floats]]:
    """Metrics that are a share of images: name → hits and trials of each group."""
    index, count = group_numbers(groups)
    counts = counts_per_group(targets, predictions_of(probs, space, decision), index, count, space)
    k = space.num_classes
    found: dict[str, tuple[Floats, Floats]] = {}
    if space.task == "multilabel":
        outcomes = counts[:, : 4 * k].reshape(-1, k, 4)
        for i, name in enumerate(space.classes):
            negative, false, missed, hit = (outcomes[:, i, j] for j in range(4))
            found[f"recall_{name}"] = (hit, hit + missed)
            found[f"precision_{name}"] = (hit, hit + false)
            found[f"specificity_{name}"] = (negative, negative + false)
        if space.edges:
            found["violation_rate"] = (counts[:, 4 * k], counts[:, 4 * k + 1])
        return found
    confusion = counts.reshape(-1, k, k)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    found["accuracy"] = (hits.sum(axis=1), confusion.sum(axis=(1, 2)))
    for i, name in enumerate(space.classes):
        found[f"recall_{name}"] = (hits[:, i], confusion[:, i].sum(axis=1))
        found[f"precision_{name}"] = (hits[:, i], confusion[:, :, i].sum(axis=1))
    return found


def _wilson_interval(hits: Floats, trials: Floats, positives: int | None, confidence: float) -> MetricInterval:
    low, high = wilson(hits, trials, confidence)
    return MetricInterval(low, high, "wilson", positives)


def _jackknife_interval(
    name: str, value: float, left_out: Floats, positives: int | None, confidence: float
) -> MetricInterval:
    left_out = left_out[~np.isnan(left_out)]
    count = len(left_out)
    variance = ((left_out - left_out.mean()) ** 2).sum() * (count - 1) / count if count > 1 else 0.0
    df = jackknife_df(left_out) if count > 1 else 1.0
    limits = scaled_limits(name, value, math.sqrt(variance), df, confidence)
    if limits is None:
        return MetricInterval(None, None, "no spread", positives)
    return MetricInterval(*limits, "jackknife", positives)


def _scale_of(name: str) -> _Scale:
    return _SCALES["log" if name == "mae" else "fisher" if name == "qwk" else "logit"]


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


@lru_cache(maxsize=4096)
def _t_quantile(confidence: float, df: float) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(df, (1 + confidence) / 2))


def _z(confidence: float) -> float:
    from statistics import NormalDist  # noqa: PLC0415

    return NormalDist().inv_cdf((1 + confidence) / 2)
