"""Confidence intervals of one model's metrics over patients, and where there are too few patients to give one.

Shares of images (accuracy, recall, precision, specificity) have Wilson's interval with a design effect for the images
of a patient, and so has F1, which is a transformed share; AUROC of a class has a score interval. The other metrics have
a t interval from the jackknife over patients, on a scale on which they are nearer to normal. Its degrees of freedom
come from the spread of the jackknife's own terms, since a metric that hangs on eight patients has the precision of
eight, however many others there are. AUROC and F1 of a class are given no interval below ``FEWEST_POSITIVES`` patients
with the class, averages over classes none below that many with the rarest. The formulas are ``limits``'s.

Shape legend: N images, K classes, G groups (patients), F counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.jackknife import group_numbers, jackknife_covariance, leave_one_out
from raregrade.evaluation.limits import auroc_limits, f1_limits, jackknife_df, scaled_limits, wilson
from raregrade.evaluation.metrics import compute_metrics, counts_per_group, one_against_rest, predictions_of
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]
# Patients with the class below which intervals that hang on it cover too rarely (`benchmarks/verdict.py`).
FEWEST_POSITIVES = 8
TOO_FEW = "too few"


@dataclass(frozen=True)
class MetricInterval:
    """An interval, or why there is none.

    Attributes:
        low, high: None where there is no interval.
        method: ``wilson``, ``score`` or ``jackknife``; ``too few`` where too few patients have the class, ``no spread``
            where no patient changes the value, as where each image is right.
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
    shares, overlaps = _shares(targets, probs, groups, label_space, decision)
    ranked = _ranked(targets, probs, groups, label_space)
    found: dict[str, MetricInterval] = {}
    for name, value in values.items():
        own = class_of_metric(name, label_space)
        patients = None if own is None else positives[own]
        if name in shares:
            found[name] = MetricInterval(*wilson(*shares[name], confidence), "wilson", patients)
        elif not enough_patients(name, positives, label_space):
            found[name] = MetricInterval(None, None, TOO_FEW, patients)
        elif name in overlaps:
            found[name] = MetricInterval(*f1_limits(*overlaps[name], confidence), "wilson", patients)
        elif own is not None and name in ranked:
            limits = auroc_limits(value, left_out[name], *ranked[name], confidence)
            found[name] = MetricInterval(*limits, "score", patients)
        else:
            found[name] = _jackknife_interval(name, value, left_out[name], patients, confidence)
    for name, (hits, trials) in shares.items():
        own = class_of_metric(name, label_space)
        if own is not None and trials.sum():
            found[name] = MetricInterval(*wilson(hits, trials, confidence), "wilson", positives[own])
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
    if name == "auroc_weighted":  # the average, also where a class is called "weighted"
        return None
    for prefix in _PER_CLASS:
        if name.startswith(prefix) and name.removeprefix(prefix) in label_space.classes:
            return name.removeprefix(prefix)
    return None


# Metrics that no single class dominates: they have intervals however rare the rarest class.
_OF_ALL_IMAGES = frozenset({"qwk", "mae", "accuracy", "violation_rate", "auroc_weighted"})
_PER_CLASS = ("f1_", "auroc_", "recall_", "precision_", "specificity_")


Counted = Mapping[str, tuple[Floats, Floats]]


def _shares(
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    space: LabelSpace,
    decision: Decision | None,
) -> tuple[Counted, Counted]:
    """Metrics that are a share of images: name → hits and trials of each group; then likewise F1's hits and images."""
    index, count = group_numbers(groups)
    counts = counts_per_group(targets, predictions_of(probs, space, decision), index, count, space)
    k = space.num_classes
    found: dict[str, tuple[Floats, Floats]] = {}
    overlaps: dict[str, tuple[Floats, Floats]] = {}
    if space.task == "multilabel":
        outcomes = counts[:, : 4 * k].reshape(-1, k, 4)
        for i, name in enumerate(space.classes):
            negative, false, missed, hit = (outcomes[:, i, j] for j in range(4))
            found[f"recall_{name}"] = (hit, hit + missed)
            found[f"precision_{name}"] = (hit, hit + false)
            found[f"specificity_{name}"] = (negative, negative + false)
            overlaps[f"f1_{name}"] = (hit, hit + missed + false)
        if space.edges:
            found["violation_rate"] = (counts[:, 4 * k], counts[:, 4 * k + 1])
        return found, overlaps
    confusion = counts.reshape(-1, k, k)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    found["accuracy"] = (hits.sum(axis=1), confusion.sum(axis=(1, 2)))
    for i, name in enumerate(space.classes):
        found[f"recall_{name}"] = (hits[:, i], support[:, i])
        found[f"precision_{name}"] = (hits[:, i], predicted[:, i])
        overlaps[f"f1_{name}"] = (hits[:, i], support[:, i] + predicted[:, i] - hits[:, i])
    return found, overlaps


def _ranked(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], groups: npt.NDArray[Any], space: LabelSpace
) -> Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """AUROC of each class: name → images of each group with the class and without."""
    index, count = group_numbers(groups)
    rest = one_against_rest(targets, probs, space)
    return {
        f"auroc_{name}": (
            np.bincount(index[known][positive], minlength=count),
            np.bincount(index[known][~positive], minlength=count),
        )
        for name, (positive, _, known) in zip(space.classes, rest, strict=True)
    }


def _jackknife_interval(
    name: str, value: float, left_out: Floats, positives: int | None, confidence: float
) -> MetricInterval:
    left_out = left_out[~np.isnan(left_out)]
    limits = None
    if len(left_out) > 1:
        error = math.sqrt(float(jackknife_covariance(left_out[None])[0, 0]))
        limits = scaled_limits(name, value, error, jackknife_df(left_out), confidence)
    if limits is None:
        return MetricInterval(None, None, "no spread", positives)
    return MetricInterval(*limits, "jackknife", positives)
