"""Whether tuned parameters are better than those one had: paired over fresh seeds, on validation.

The best of many trials looks better than it is, since luck took part in choosing it. So it is trained again with seeds
that no trial had, beside the settings as they stand and the tuned baseline with the same seeds. **Better** means that
the mean of the paired differences is more than t × its standard error above zero, with the one-sided 95 % quantile of
Student's t: luck alone passes one time in twenty.

Over folds the differences are not independent, because folds share training images. There the mean of each fold counts
once, and the variance is corrected (Nadeau and Bengio, Machine Learning 52 (2003), 239; ``benchmarks/confirmation.py``
measures what both rules let pass). On one split the claim is about its patients: of settings that are equally good
elsewhere, one may well be better on them, which the test split alone can tell.

A setting that does not train is worse than one that does. A candidate of which a training failed is never better. A
reference that failed with every seed, or with at least three and more than half of them, is worse than a candidate that
never failed, unless the trainings that are left speak against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raregrade.evaluation.mrmc import corrected_resampled_t

CONFIDENCE = 0.95
_FEWEST_FAILURES = 3

# What decided: a t-test; a training that failed, of the reference or of the candidate; differences that are all equal,
# of which nothing can be said; the same trainings on both sides; fewer than two pairs.
Reason = Literal["tested", "reference_failed", "candidate_failed", "equal_differences", "same", "too_few"]
Values = Mapping[int, float | None]


@dataclass(frozen=True)
class Folds:
    """That a comparison runs over folds.

    Attributes:
        of_training: the fold of each fresh seed.
        held_out: the share of the images that a fold holds out, in (0, 1).
    """

    of_training: Sequence[int]
    held_out: float


@dataclass(frozen=True)
class Comparison:
    """Paired differences, signed so that positive is better.

    Attributes:
        mean: of the differences; over folds the mean of the folds' means.
        standard_error: of that mean.
        t: how many standard errors the mean has to exceed.
        pairs: how many differences there are; over folds, how many folds.
        better: whether the candidate is.
        reason: what decided.
        failed: trainings of the reference that failed.
    """

    mean: float
    standard_error: float
    t: float
    pairs: int
    better: bool
    reason: Reason
    failed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As best.yaml holds it."""
        return {
            "difference": self.mean,
            "standard_error": self.standard_error,
            "t": self.t,
            "pairs": self.pairs,
            "better": self.better,
            "reason": self.reason,
        }


def rule(folds: Folds | None) -> str:
    """The rule in a few words, for best.yaml."""
    if folds is None:
        return "mean paired difference > t x its standard error, one-sided 95 %"
    return (
        "mean difference of the folds > t x its standard error, corrected for the training images that folds share, "
        "one-sided 95 %"
    )


def compare(candidate: Values, reference: Values, *, lower_is_better: bool, folds: Folds | None = None) -> Comparison:
    """Hold ``candidate`` against ``reference``, value by number of the fresh seed; None where a training failed.

    Args:
        candidate, reference: the metric of each training; both have the same numbers.
        lower_is_better: of the metric.
        folds: where the trainings validate on folds; None is one fixed split.
    """
    sign = -1.0 if lower_is_better else 1.0
    pairs = {
        number: sign * (value - other)
        for number, value in candidate.items()
        if value is not None and (other := reference.get(number)) is not None
    }
    differences = list(pairs.values()) if folds is None else _by_fold(pairs, folds)
    failed = sum(value is None for value in reference.values())
    test = corrected_resampled_t(differences, 0.0 if folds is None else folds.held_out)
    needed = _quantile(len(differences) - 1)

    def found(better: bool, reason: Reason) -> Comparison:
        return Comparison(test.mean, test.standard_error, needed, len(differences), better, reason, failed)

    if any(value is None for value in candidate.values()):
        return found(better=False, reason="candidate_failed")
    if _hardly_trains(failed, len(reference)) and (not differences or test.mean >= 0):
        return found(better=True, reason="reference_failed")
    if len(differences) < 2:
        return found(better=False, reason="too_few")
    if test.standard_error == 0:
        return found(better=False, reason="same" if test.mean == 0 else "equal_differences")
    return found(better=test.mean > needed * test.standard_error, reason="tested")


def sentence(
    loss: str, baseline: str | None, by: Comparison, by_baseline: Comparison | None, metric: str, *, folds: bool = False
) -> str:
    """What a person reads of it: ``by`` is the comparison with the loss's own settings."""
    own = "its settings in params.yaml"
    over = f" over {by.pairs} folds" if folds else f" over {by.pairs} fresh seeds on the validation split"
    if by.reason == "same":
        return f"No trial of {loss} was better than its settings in params.yaml: they are kept."
    if by.reason == "candidate_failed":
        return f"The best trial of {loss} did not train to its end with every fresh seed: {own} are kept."
    if by.reason == "equal_differences":
        return (
            f"Tuned {loss} differs from {own} by {metric} {by.mean:+.4f} with each of the {by.pairs} "
            f"{'folds' if folds else 'fresh seeds'}: without any spread nothing is shown, and the settings are kept."
        )
    if not by.better:
        return f"Tuned {loss} is not shown to be better than {own}{_figures(by, metric)}{over}: the settings are kept."
    if by.reason == "reference_failed":
        text = (
            f"Tuned {loss} is better than {own}, with which {by.failed} of the trainings with fresh seeds did not come "
            "to their end"
        )
    else:
        text = f"Tuned {loss} is better than {own}{_figures(by, metric)}{over}"
    if by_baseline is None:
        return f"{text}."
    joint = ", and better than" if by_baseline.better else ", but not shown to be better than"
    return f"{text}{joint} the tuned {baseline}{_figures(by_baseline, metric)}."


def _by_fold(pairs: Mapping[int, float], folds: Folds) -> list[float]:
    """The mean difference of each fold that has a pair."""
    gathered: dict[int, list[float]] = {}
    for number, difference in pairs.items():
        gathered.setdefault(folds.of_training[number], []).append(difference)
    return [math.fsum(values) / len(values) for values in gathered.values()]


def _hardly_trains(failed: int, trainings: int) -> bool:
    """Whether so many of the trainings failed that the settings count as worse than any that train.

    Of two settings that fail equally often, at most one in sixteen is called worse by this (with two seeds, both of
    which failed); with three or more seeds one in thirty.
    """
    return failed == trainings > 0 or (failed >= _FEWEST_FAILURES and failed > trainings / 2)


def _quantile(df: int) -> float:
    if df < 1:
        return math.nan
    from scipy.stats import t as student  # noqa: PLC0415 - takes a second

    return float(student.ppf(CONFIDENCE, df))


def _figures(comparison: Comparison, metric: str) -> str:
    if math.isnan(comparison.mean) or math.isnan(comparison.standard_error):
        return ""
    return f" ({metric} {comparison.mean:+.4f}, standard error {comparison.standard_error:.4f})"
