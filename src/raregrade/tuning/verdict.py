"""Whether tuned parameters are better than those one had: paired over fresh seeds, on validation.

The best of many trials looks better than it is, since luck took part in choosing it. So it is trained again with seeds
that no trial had, beside the settings as they stand and the tuned baseline with the same seeds. **Better** means that
the mean of the paired differences is more than t × its standard error above zero, with the one-sided 95 % quantile of
Student's t for that many seeds (2.13 for five): luck alone passes one time in twenty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
RULE = "mean paired difference > t x its standard error, one-sided 95 %"


@dataclass(frozen=True)
class Comparison:
    """Paired differences, signed so that positive is better.

    Attributes:
        mean: of the differences.
        standard_error: of that mean.
        t: how many standard errors the mean has to exceed.
        pairs: how many differences there are.
        better: whether it does.
    """

    mean: float
    standard_error: float
    t: float
    pairs: int
    better: bool

    def to_dict(self) -> dict[str, Any]:
        """As best.yaml holds it."""
        return {
            "difference": self.mean,
            "standard_error": self.standard_error,
            "t": self.t,
            "pairs": self.pairs,
            "better": self.better,
        }


def compare(
    candidate: Mapping[int, float | None], reference: Mapping[int, float | None], *, lower_is_better: bool
) -> Comparison:
    """Hold ``candidate`` against ``reference``, value by seed; None where a training diverged.

    A candidate of which a training diverged is not better, whatever the others came to. Seeds with which the reference
    diverged make no pair. With fewer than two pairs nothing can be said, and so nothing is better.
    """
    sign = -1.0 if lower_is_better else 1.0
    differences = [
        sign * (value - other)
        for seed, value in candidate.items()
        if value is not None and (other := reference.get(seed)) is not None
    ]
    if len(differences) < 2:
        return Comparison(math.nan, math.nan, math.nan, len(differences), better=False)
    from scipy.stats import t as student  # noqa: PLC0415 - takes a second

    mean = math.fsum(differences) / len(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    needed = float(student.ppf(CONFIDENCE, len(differences) - 1))
    complete = all(value is not None for value in candidate.values())
    return Comparison(mean, error, needed, len(differences), better=complete and mean > needed * error)


def sentence(loss: str, baseline: str | None, by: Comparison, by_baseline: Comparison | None, metric: str) -> str:
    """What a person reads of it."""
    seeds = f"over {by.pairs} fresh seeds"
    if by.pairs and by.mean == by.standard_error == 0:
        return f"No trial of {loss} was better than its settings in params.yaml: they are kept."
    if not by.better:
        text = f"Tuned {loss} is not shown to be better than its settings in params.yaml{_figures(by, metric)} {seeds}"
        return f"{text}: the settings are kept."
    text = f"Tuned {loss} is better than its settings in params.yaml{_figures(by, metric)} {seeds}"
    if by_baseline is None:
        return f"{text}."
    joint = ", and better than" if by_baseline.better else ", but not shown to be better than"
    return f"{text}{joint} the tuned {baseline}{_figures(by_baseline, metric)}."


def _figures(comparison: Comparison, metric: str) -> str:
    if math.isnan(comparison.mean):
        return ""
    return f" ({metric} {comparison.mean:+.4f}, standard error {comparison.standard_error:.4f})"
