"""Intervals and comparisons by a bootstrap over groups (patients, lesions).

Images of one patient are not independent, so groups are resampled, never images: each resample draws as many groups
as there are, with replacement, and a metric is computed on all images of the drawn groups (Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8, strategy 1). All models see the same draws, which makes
differences between them paired. Intervals are percentile intervals. Over the seeds of a loss the metric is averaged
within each resample, so an interval says how much the result depends on which patients were seen; it does not
contain the randomness of training, which the spread over seeds shows.

Nothing here reads files or knows what a loss is. Needs numpy alone.

Shape legend: M models (loss and seed), N images, G groups, K classes, R resamples, F counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.metrics import (
    auroc_metrics,
    check_arrays,
    counts_per_group,
    metrics_of_counts,
    predictions_of,
)
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]
# Resamples computed at once: bounds memory to about 3 · N · 256 floats, and fits the processor's cache.
CHUNK = 256
SEED = 0


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a metric or of a difference."""

    low: float
    high: float


def bootstrap_metrics(
    targets: npt.NDArray[Any],
    probs: Sequence[npt.NDArray[Any]],
    groups: npt.NDArray[Any],
    label_space: LabelSpace,
    *,
    resamples: int,
    seed: int = SEED,
    decisions: Sequence[Decision | None] | None = None,
) -> dict[str, Floats]:
    """Every metric of ``compute_metrics`` for each model on the same resamples of groups.

    Count metrics come from ``weights[R, G] @ counts[G, F]``, AUROC from one sort a class and weighted cumulative
    sums; no metric is computed in a Python loop over resamples.

    Args:
        targets: [N] or [N, K], shared by all models.
        probs: M arrays [N, K].
        groups: [N] names of groups.
        label_space: the task and its K classes.
        resamples: R.
        seed: of the draws; the same seed, groups and R give the same draws.
        decisions: one a model; the task's default where None.

    Returns:
        name → float64 [M, R]; NaN where the metric is undefined in a resample.

    Raises:
        DataError: what ``compute_metrics`` refuses.
    """
    for model in probs:
        check_arrays(targets, model, label_space)
    # Sorted names: the draws must not depend on the order of the images.
    names, group_index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    counts = [
        counts_per_group(targets, predictions_of(p, label_space, d), group_index, len(names), label_space)
        for p, d in zip(probs, decisions or [None] * len(probs), strict=True)
    ]
    generator = np.random.default_rng(seed)
    chunks: list[list[dict[str, Floats]]] = []
    for start in range(0, resamples, CHUNK):
        weights = _draw(generator, len(names), min(CHUNK, resamples - start))
        image_weights = np.ascontiguousarray(weights.T)[group_index]
        chunks.append(
            [
                metrics_of_counts(weights @ c, label_space) | auroc_metrics(targets, p, image_weights, label_space)
                for c, p in zip(counts, probs, strict=True)
            ]
        )
    return {
        name: np.stack([np.concatenate([chunk[m][name] for chunk in chunks]) for m in range(len(probs))])
        for name in chunks[0][0]
    }


def interval(samples: Floats, confidence: float) -> Interval | None:
    """Percentile interval of [R] resampled values that are not NaN; None where more than half are NaN."""
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def p_value(differences: Floats) -> float:
    """Two-sided bootstrap p-value of a difference of zero, in (0, 1], from [R] resampled differences.

    Twice the smaller tail at zero, with one count added so that it is never 0 (Davison & Hinkley 1997, chapter 4).
    """
    defined = differences[~np.isnan(differences)]
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number, step-down (Holm, Scand. J. Statist. 6 (1979), 65), in the order given."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - i) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _draw(generator: np.random.Generator, num_groups: int, resamples: int) -> Floats:
    """float64 [R, G]: how often each group is drawn in each resample; every row sums to G."""
    drawn = generator.integers(0, num_groups, size=(resamples, num_groups))
    cells = drawn + num_groups * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * num_groups)
    return counts.reshape(resamples, num_groups).astype(np.float64)
