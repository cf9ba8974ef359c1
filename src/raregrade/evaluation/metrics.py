"""Metrics of class probabilities against targets, for ordinal, multiclass and multilabel tasks.

Everything is computed from two kinds of sufficient statistics, counts and weighted ranks, by functions that take
leading batch dimensions: ``compute_metrics`` calls them with one row, ``jackknife`` with one row per group that is left
out, so a metric and its interval cannot drift apart. Needs numpy alone; runs once every training epoch.

A metric that is undefined on the data (AUROC of a class without positives or negatives, F1 of a class that neither
occurs nor is predicted, QWK where targets and predictions are one and the same class) is NaN in the batched functions
and absent from the result of ``compute_metrics``; macro averages are taken over the classes where it is defined.

Shape legend: N images, K classes, E edges, R rows (one, or one a group that is left out).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision, default_decision

Floats = npt.NDArray[np.float64]


def compute_metrics(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace, decision: Decision | None = None
) -> dict[str, float]:
    """Every metric of the task that is defined on the data, by name without split.

    ordinal: qwk, mae (in grades), accuracy, balanced_accuracy, macro_f1, auroc, f1_<class>, auroc_<class>.
    multiclass: the same without qwk and mae.
    multilabel: macro_f1, auroc, auroc_weighted (by number of positives), violation_rate where the label space has
    edges, f1_<class>, auroc_<class>. Labels that are NaN are left out.
    AUROC is one class against the rest, macro-averaged.

    Args:
        targets: int [N] in [0, K), or float [N, K] of 0, 1 and NaN for ``multilabel``.
        probs: [N, K] in [0, 1].
        label_space: the task and its K classes.
        decision: how probabilities become predicted classes; ``default_decision`` where None.

    Raises:
        DataError: no images, wrong shapes, a target outside the classes, a probability that is NaN or infinite.
    """
    check_arrays(targets, probs, label_space)
    predicted = predictions_of(probs, label_space, decision)
    counts = counts_per_group(targets, predicted, np.zeros(len(targets), dtype=np.int64), 1, label_space)
    values = metrics_of_counts(counts, label_space)
    columns = one_against_rest(targets, probs, label_space)
    areas = np.array([[auroc(scores, positive) for positive, scores, _ in columns]])
    values |= macro_auroc(areas, np.array([[positive.sum() for positive, _, _ in columns]]), label_space)
    ordered = sorted(values, key=lambda name: _position(name, label_space))
    return {name: float(values[name][0]) for name in ordered if not np.isnan(values[name][0])}


def headline_metrics(label_space: LabelSpace) -> tuple[str, ...]:
    """The names of the task's metrics that are not about one class, most telling first."""
    if label_space.task == "multilabel":
        return ("auroc", "auroc_weighted", "macro_f1", *(("violation_rate",) if label_space.edges else ()))
    ordinal = ("qwk", "mae") if label_space.task == "ordinal" else ()
    return (*ordinal, "macro_f1", "balanced_accuracy", "accuracy", "auroc")


def confusion_matrix(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace, decision: Decision | None = None
) -> npt.NDArray[np.int64]:
    """int64 [K, K]: entry (i, j) counts images of class i predicted as class j. Single-label tasks only."""
    check_arrays(targets, probs, label_space)
    k = label_space.num_classes
    groups = np.zeros(len(targets), dtype=np.int64)
    predicted = predictions_of(probs, label_space, decision)
    return counts_per_group(targets, predicted, groups, 1, label_space).reshape(k, k).astype(np.int64)


def label_outcomes(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace, decision: Decision | None = None
) -> npt.NDArray[np.int64]:
    """int64 [K, 2, 2] for ``multilabel``: entry (k, i, j) counts images with label k = i that are predicted as j."""
    check_arrays(targets, probs, label_space)
    k = label_space.num_classes
    groups = np.zeros(len(targets), dtype=np.int64)
    counts = counts_per_group(targets, predictions_of(probs, label_space, decision), groups, 1, label_space)
    return counts[0, : 4 * k].reshape(k, 2, 2).astype(np.int64)


def check_arrays(targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace) -> None:
    """Raise DataError unless ``targets`` and ``probs`` are what ``compute_metrics`` takes."""
    k = label_space.num_classes
    multilabel = label_space.task == "multilabel"
    expected = (len(targets), k) if multilabel else (len(targets),)
    if len(targets) == 0:
        raise DataError("there are no images to compute metrics on")
    if targets.shape != expected or probs.shape != (len(targets), k):
        raise DataError(
            f"targets have shape {targets.shape} and probs {probs.shape}; expected {expected} and {(len(targets), k)}"
        )
    finite = np.isfinite(probs).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"the probabilities of image {row} are {probs[row].tolist()}, not finite: the model that made them has "
            "diverged; train it with a lower learning rate"
        )
    allowed = (targets == 0) | (targets == 1) | np.isnan(targets) if multilabel else (targets >= 0) & (targets < k)
    if not allowed.all():
        wrong = targets[~allowed].ravel()[0]
        raise DataError(
            f"target {wrong} is not allowed; targets are {'0, 1 or NaN' if multilabel else f'0 to {k - 1}'}"
        )


def predictions_of(
    probs: npt.NDArray[Any], label_space: LabelSpace, decision: Decision | None = None
) -> npt.NDArray[Any]:
    """What ``decision`` (``default_decision`` where None) makes of ``probs`` [N, K]: int64 [N], or bool [N, K]."""
    return (decision or default_decision(label_space)).decide(probs)


def counts_per_group(
    targets: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: npt.NDArray[np.int64],
    num_groups: int,
    label_space: LabelSpace,
) -> Floats:
    """The counts that the count metrics are made of, summed over the images of each group.

    Counts add up over groups, so those of all images but a group's are the total less the group's row.

    Args:
        targets: as for ``compute_metrics``.
        predicted: int64 [N] class indices, or bool [N, K] for ``multilabel``.
        groups: int64 [N] in [0, num_groups).
        num_groups: G.
        label_space: the task and its K classes.

    Returns:
        float64 [G, F]. Single-label: the confusion matrix, F = K·K. Multilabel: true negatives, false positives,
        false negatives and true positives a label, then violated (edge, image) pairs and all pairs, F = 4·K + 2.
    """
    k = label_space.num_classes
    if label_space.task != "multilabel":
        cells = (groups * k + targets.astype(np.int64)) * k + predicted
        return np.bincount(cells, minlength=num_groups * k * k).reshape(num_groups, k * k).astype(np.float64)
    known = ~np.isnan(targets)
    rows, labels = np.nonzero(known)
    outcome = 2 * (targets[known] == 1) + predicted[known]
    cells = (groups[rows] * k + labels) * 4 + outcome
    outcomes = np.bincount(cells, minlength=num_groups * k * 4).reshape(num_groups, k * 4)
    edges = np.asarray(label_space.edge_indices, dtype=np.int64).reshape(-1, 2)
    orphans = (predicted[:, edges[:, 1]] & ~predicted[:, edges[:, 0]]).sum(axis=1)
    violated = np.bincount(groups, weights=orphans, minlength=num_groups)
    pairs = np.bincount(groups, minlength=num_groups) * len(label_space.edges)
    return np.column_stack([outcomes, violated, pairs]).astype(np.float64)


def metrics_of_counts(counts: Floats, label_space: LabelSpace, of_split: Floats | None = None) -> dict[str, Floats]:
    """Count metrics of rows of ``counts_per_group``, float64 [R, F] → name: float64 [R], NaN where undefined.

    Averages over classes are taken over the classes that the split has, whether or not a row has them: F1 of such a
    class is 0 in a row without it, as it is for a model that never finds it.

    Args:
        counts: [R, F].
        label_space: the task and its K classes.
        of_split: [F], counts of the whole split; None where each row is a split of its own.
    """
    k = label_space.num_classes
    whole = counts if of_split is None else np.broadcast_to(of_split, counts.shape)
    if label_space.task == "multilabel":
        outcomes = counts[:, : 4 * k].reshape(-1, k, 4)
        fp, fn, tp = outcomes[..., 1], outcomes[..., 2], outcomes[..., 3]
        present = whole[:, : 4 * k].reshape(-1, k, 4)[..., 2:].sum(axis=2) > 0
        f1 = _of_present(_ratio(2 * tp, 2 * tp + fp + fn), present)
        values = {"macro_f1": _mean_over(f1, present)}
        if label_space.edges:
            values["violation_rate"] = _ratio(counts[:, 4 * k], counts[:, 4 * k + 1])
        return values | {f"f1_{c}": f1[:, i] for i, c in enumerate(label_space.classes)}
    confusion = counts.reshape(-1, k, k)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, predicted, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    present = whole.reshape(-1, k, k).sum(axis=2) > 0
    f1 = _of_present(_ratio(2 * hits, support + predicted), present)
    values = {
        "accuracy": _ratio(hits.sum(axis=1), total),
        "balanced_accuracy": _mean_defined(_ratio(hits, support)),
        "macro_f1": _mean_over(f1, present),
    }
    if label_space.task == "ordinal":
        distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(np.float64)
        values["mae"] = _ratio((confusion * distance).sum(axis=(1, 2)), total)
        values["qwk"] = _quadratic_weighted_kappa(confusion, support, predicted, total, distance**2)
    return values | {f"f1_{c}": f1[:, i] for i, c in enumerate(label_space.classes)}


def one_against_rest(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """For each class which known images have it, their scores, and which images are known (bool [N])."""
    if label_space.task != "multilabel":
        known = np.ones(len(targets), dtype=np.bool_)
        return [(targets == i, probs[:, i], known) for i in range(label_space.num_classes)]
    columns = ~np.isnan(targets)
    return [
        (targets[columns[:, i], i] == 1, probs[columns[:, i], i], columns[:, i]) for i in range(label_space.num_classes)
    ]


def macro_auroc(area: Floats, positives: npt.NDArray[Any], label_space: LabelSpace) -> dict[str, Floats]:
    """AUROC a class and its averages, from ``area`` [R, K] and the number of ``positives`` [R, K]."""
    values = {"auroc": _mean_defined(area)}
    if label_space.task == "multilabel":
        support = np.where(np.isnan(area), 0.0, positives)
        values["auroc_weighted"] = _ratio((support * np.nan_to_num(area)).sum(axis=1), support.sum(axis=1))
    # The averages last: they keep their names should a class be called "weighted".
    return {f"auroc_{c}": area[:, i] for i, c in enumerate(label_space.classes)} | values


def auroc(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative, ties counting one half: the Mann-Whitney statistic.

    Args:
        scores: [N].
        positive: bool [N].

    Returns:
        NaN where there are no positives or no negatives.
    """
    negatives = np.sort(scores[~positive])
    below = np.searchsorted(negatives, scores[positive], side="left")
    not_above = np.searchsorted(negatives, scores[positive], side="right")
    pairs = len(below) * len(negatives)
    return float((below + not_above).sum() / 2 / pairs) if pairs else float("nan")


def _quadratic_weighted_kappa(
    confusion: Floats, support: Floats, predicted: Floats, total: Floats, squared: Floats
) -> Floats:
    """Cohen's kappa with weights (i - j)², of confusion matrices [R, K, K]; Cohen, Psychol. Bull. 70 (1968), 213."""
    observed = (confusion * squared).sum(axis=(1, 2))
    expected = np.einsum("ri,ij,rj->r", support, squared, predicted, optimize=True) / np.maximum(total, 1)
    return 1 - _ratio(observed, expected)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, NaN where the denominator is 0."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def _of_present(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """``values`` with 0 where a class that the split has is undefined."""
    return np.where(np.isnan(values) & present, 0.0, values)


def _mean_over(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """Mean over the last axis of the classes that are present; NaN where none is."""
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def _mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def _position(name: str, label_space: LabelSpace) -> tuple[int, int]:
    """Sort key: headline metrics in their order, then F1 and AUROC by class."""
    headline = headline_metrics(label_space)
    if name in headline:
        return (0, headline.index(name))
    kind, _, label = name.partition("_")
    return (1 if kind == "f1" else 2, label_space.classes.index(label))
