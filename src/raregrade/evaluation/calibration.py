"""How well probabilities agree with observed frequencies. Nothing here changes a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.labels import LabelSpace


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width over [0, 1].

    Attributes:
        counts: int64 [B], predictions in each bin.
        confidence, observed: float64 [B], mean probability and observed frequency of each bin, NaN where empty.
        error: expected calibration error, the mean of |observed - confidence| weighted by counts
            (Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3).
        confidence_name, observed_name, unit: what the numbers are, for axes.
    """

    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    error: float
    confidence_name: str
    observed_name: str
    unit: str


def reliability(
    targets: npt.NDArray[Any], probs: npt.NDArray[Any], label_space: LabelSpace, bins: int = 10
) -> Reliability:
    """Bins of the most probable class's probability, or of every known label's, against how often it is right.

    Args:
        targets: int [N], or float [N, K] of 0, 1 and NaN for ``multilabel``.
        probs: [N, K] in [0, 1].
        label_space: the task and its K classes.
        bins: B.
    """
    if label_space.task == "multilabel":
        known = ~np.isnan(targets)
        confidence, hit = probs[known], targets[known]
        names = ("Predicted probability of a label", "Share with the label", "Labels")
    else:
        confidence, hit = probs.max(axis=1), (probs.argmax(axis=1) == targets).astype(np.float64)
        names = ("Probability of the most probable class", "Share in which it is the true class", "Images")
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = np.maximum(counts, 1)
    mean_confidence = np.where(counts > 0, np.bincount(index, weights=confidence, minlength=bins) / filled, np.nan)
    observed = np.where(counts > 0, np.bincount(index, weights=hit, minlength=bins) / filled, np.nan)
    error = float(np.nansum(np.abs(observed - mean_confidence) * counts) / max(1, counts.sum()))
    return Reliability(counts, mean_confidence, observed, error, *names)
