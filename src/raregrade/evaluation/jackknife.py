"""Metrics with one group (patient) left out at a time, and what they say of the variance over patients.

Leaving out a group changes counts and pairs by what that group holds, so all G values of a metric cost about as much as
one: nothing is drawn, and the same input gives the same bits. A class of the split stays a class of the metric when its
patients are left out: the set of classes is fixed by the split.

Variance and covariance are Efron and Stein's (Ann. Statist. 9 (1981), 586) over groups:
(G - 1)/G times the sum over g of (value without g - mean of these) squared.

Shape legend: N images, K classes, G groups, M models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.metrics import (
    check_arrays,
    counts_per_group,
    macro_auroc,
    metrics_of_counts,
    one_against_rest,
    predictions_of,
)
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]


def group_numbers(groups: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], int]:
    """int64 [N] in [0, G) and G: groups numbered in the order of their names."""
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return index.astype(np.int64), len(names)


def leave_one_out(
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    label_space: LabelSpace,
    decision: Decision | None = None,
) -> dict[str, Floats]:
    """Every metric of ``compute_metrics`` without each group in turn.

    Args:
        targets: [N] or [N, K]; probs: [N, K].
        groups: [N] names of groups.
        label_space: the task and its K classes.
        decision: how probabilities become predictions; the task's default where None.

    Returns:
        name → float64 [G], groups in the order of their names; NaN where a metric is undefined without the group.

    Raises:
        DataError: what ``compute_metrics`` refuses.
    """
    check_arrays(targets, probs, label_space)
    index, num_groups = group_numbers(groups)
    counts = counts_per_group(targets, predictions_of(probs, label_space, decision), index, num_groups, label_space)
    total = counts.sum(axis=0)
    values = metrics_of_counts(total - counts, label_space, of_split=total)
    areas, positives = [], []
    for positive, scores, known in one_against_rest(targets, probs, label_space):
        areas.append(leave_one_out_auroc(scores, positive, index[known], num_groups))
        held = np.bincount(index[known], weights=positive, minlength=num_groups)
        positives.append(held.sum() - held)
    return values | macro_auroc(np.stack(areas, axis=1), np.stack(positives, axis=1), label_space)


def leave_one_out_auroc(
    scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], index: npt.NDArray[np.int64], num_groups: int
) -> Floats:
    """AUROC without each group in turn, float64 [G]; NaN where no positive or no negative is left.

    From the number of won pairs of each image (its placement): those of the group are taken out, and pairs within the
    group, which are then taken out twice, put back.
    """
    won_by, won_against = _placements(scores, positive)
    won = np.zeros(len(scores))
    won[positive], won[~positive] = won_by, won_against
    lost = np.bincount(index, weights=won, minlength=num_groups) - _within(scores, positive, index, num_groups)
    above = positive.sum() - np.bincount(index, weights=positive, minlength=num_groups)
    below = (~positive).sum() - np.bincount(index, weights=~positive, minlength=num_groups)
    pairs = above * below
    left = won_by.sum() - lost
    areas: Floats = np.divide(left, pairs, out=np.full(num_groups, np.nan), where=pairs > 0)
    return areas


def jackknife_covariance(values: Floats) -> Floats:
    """Covariance [M, M] over groups of M metrics from their leave-one-out ``values`` [M, G].

    Groups without which a metric is undefined (the only patient with a class) are left out of the sum.
    """
    defined = values[:, ~np.isnan(values).any(axis=0)]
    count = defined.shape[1]
    if count < 2:
        return np.full((len(values), len(values)), np.nan)
    centred = defined - defined.mean(axis=1, keepdims=True)
    covariance: Floats = centred @ centred.T * (count - 1) / count
    return covariance


def _placements(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Won pairs of each positive and of each negative, ties counting one half."""
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    low, high = (np.searchsorted(below, scores[positive], side=side) for side in ("left", "right"))
    won_by = (low + high) / 2
    low, high = (np.searchsorted(above, scores[~positive], side=side) for side in ("left", "right"))
    won_against = len(above) - (low + high) / 2
    return won_by, won_against


def _within(
    scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], index: npt.NDArray[np.int64], num_groups: int
) -> Floats:
    """Won pairs of a positive and a negative of the same group, [G]."""
    order = np.argsort(index[~positive], kind="stable")
    negatives, of_group = scores[~positive][order], index[~positive][order]
    mine = index[positive]
    first = np.searchsorted(of_group, mine, side="left")
    size = np.searchsorted(of_group, mine, side="right") - first
    rows = np.repeat(np.arange(len(mine)), size)
    others = np.repeat(first - np.concatenate([[0], np.cumsum(size)[:-1]]), size) + np.arange(size.sum())
    mine_scores = scores[positive][rows]
    won = (mine_scores > negatives[others]) + (mine_scores == negatives[others]) / 2
    return np.bincount(mine[rows], weights=won, minlength=num_groups).astype(np.float64)
