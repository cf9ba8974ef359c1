"""Is one loss better than another: tests in which training and patients are both random.

A trained model is one draw of the luck of training, a patient one draw of the people who come. In radiology the same
question is asked of readers who read the same cases: a training seed is a reader, a patient is a case, a loss is a
treatment, and seeds are nested in losses. This module is the method of Obuchowski and Rockette (Commun. Stat. Simul.
Comput. 24 (1995), 285) with the degrees of freedom of Hillis (Stat. Med. 26 (2007), 596; for readers nested in
treatments Stat. Med. 33 (2014), 330), and for folds of cross-validation the corrected resampled t-test of Nadeau and
Bengio (Machine Learning 52 (2003), 239). What can be claimed with how much doubt is ``claim``'s; nothing here knows a
metric, a file or a loss. ``docs/statistics.md`` says why each choice was made, and ``benchmarks/verdict.py`` measures
what they let pass.

Shape legend: S seeds of a loss, M models, G groups (patients), k folds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.limits import t_quantile

Floats = npt.NDArray[np.float64]
POWER = 0.8
_MOST_SEEDS = 1000
# The variance over two seeds is so rough that it is often far too small, and the degrees of freedom then far too many.
# With two seeds on a side of a difference, and for a mean over two, they are at most these (measured by simulation).
_DF_OF_TWO_SEEDS = 2.0


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Attributes:
        mean: of the metric over the seeds.
        standard_error: from training and patients; from patients alone where ``patients_only``.
        df: degrees of freedom of the interval.
        low, high: the interval; None where the standard error is 0.
        patients_only: one seed: the luck of training is not in the interval.
    """

    mean: float
    standard_error: float
    df: float
    low: float | None
    high: float | None
    patients_only: bool


@dataclass(frozen=True)
class Difference:
    """Metric of one loss minus that of another, means over their seeds.

    Attributes:
        mean: the difference.
        standard_error: None where either has one seed: how far training alone moves the metric is then unknown.
        df: Hillis' degrees of freedom; None as ``standard_error``.
        low, high: confidence interval; of the patients alone where ``patients_only``. None where nothing varies.
        p: two-sided; None with one seed, and where nothing varies.
        patients_only: either loss has one seed, so that nothing can be claimed of the losses.
        training_variance: the part of the variance that the luck of training adds; 0 where it is unknown.
        case_variance: the part that patients add.
        training_parts: s²/S of each of the two, 0 where unknown.
    """

    mean: float
    standard_error: float | None
    df: float | None
    low: float | None
    high: float | None
    p: float | None
    patients_only: bool
    training_variance: float
    case_variance: float
    training_parts: tuple[float, float]


@dataclass(frozen=True)
class TTest:
    """A t-test of a mean against zero; ``p`` is two-sided, ``p_greater`` one-sided. NaN with fewer than two values."""

    mean: float
    standard_error: float
    df: float
    p: float
    p_greater: float


@dataclass(frozen=True)
class Power:
    """What the present patients and seeds can show.

    Attributes:
        detectable: the true difference that is found in four of five repetitions of the whole study; with one seed
            what the patients alone would allow, a lower bound.
        seeds_needed: seeds per loss with which a true difference as large as the observed one is found in four of five;
            None where no number of seeds is enough for these patients, or where the spread over seeds is unknown.
    """

    detectable: float | None
    seeds_needed: int | None


def difference(
    values_a: npt.ArrayLike, values_b: npt.ArrayLike, covariance: Floats, *, case_df: float, confidence: float
) -> Difference:
    """Test the difference of two losses, seeds nested in losses and patients shared.

    Var = s²_a/S_a + s²_b/S_b + max(Cov2_a + Cov2_b - 2 Cov3, 0), where s² is the variance of the metric over the seeds
    of a loss, Cov2 the mean covariance over patients between two seeds of one loss, and Cov3 that between a seed of one
    and a seed of the other. Each loss has an s² of its own, as in Welch's test: losses differ in how much luck their
    training needs. Where the losses have different numbers of seeds, that is too sure of itself if the loss with fewer
    seeds is by luck the steadier one; there one s² for both is tried as well (Hillis' mean square of readers within
    treatments), and the wider of the two intervals counts.

    Args:
        values_a: [S_a], the metric of each seed of the first loss.
        values_b: [S_b].
        covariance: [S_a + S_b, S_a + S_b] of these values over patients (bootstrap or jackknife), a before b.
        case_df: degrees of freedom of the variance over patients: G - 1, or fewer (``intervals.jackknife_df``).
        confidence: of the interval, such as 0.95.
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.shape != (len(a) + len(b),) * 2:
        raise ValueError(f"covariance has shape {covariance.shape} for {len(a)} and {len(b)} seeds")
    mean = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    if min(len(a), len(b)) < 2:
        weights = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
        case = max(float(weights @ covariance @ weights), 0.0)
        low, high = _limits(mean, math.sqrt(case), case_df, confidence)
        return Difference(mean, None, None, low, high, None, True, 0.0, case, (0.0, 0.0))
    own_a, own_b = covariance[: len(a), : len(a)], covariance[len(a) :, len(a) :]
    case = max(_between(own_a) + _between(own_b) - 2 * float(covariance[: len(a), len(a) :].mean()), 0.0)
    parts = (float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b))
    error, df = _error(parts, (len(a), len(b)), case, case_df, confidence)
    if _negligible(error, a, b):
        p = 1.0 if abs(mean) <= _rounding(a, b) else None
        return Difference(mean, 0.0, None, None, None, p, False, sum(parts), case, parts)
    low, high = _limits(mean, error, df, confidence)
    return Difference(mean, error, df, low, high, _two_sided(mean / error, df), False, sum(parts), case, parts)


def mean_interval(values: npt.ArrayLike, covariance: Floats, *, case_df: float, confidence: float) -> Estimate:
    """Interval of the mean over seeds of one loss: Var = s²/S + Cov2; with one seed the variance over patients.

    Args:
        values: [S].
        covariance: [S, S] over patients.
        case_df: as for ``difference``.
        confidence: of the interval.
    """
    own = np.asarray(values, dtype=np.float64)
    seeds, mean = len(own), math.fsum(own) / len(own)
    if seeds < 2:
        error, df = math.sqrt(max(float(np.asarray(covariance)[0, 0]), 0.0)), case_df
    else:
        training = (float(own.var(ddof=1)) / seeds,)
        total, df = _total(training, (seeds,), max(_between(covariance), 0.0), case_df)
        error, df = math.sqrt(total), min(df, _DF_OF_TWO_SEEDS if seeds == 2 else math.inf)
    low, high = (None, None) if _negligible(error, own, own) else _limits(mean, error, df, confidence)
    return Estimate(mean, error, df, low, high, seeds < 2)


def corrected_resampled_t(differences: npt.ArrayLike, test_share: float) -> TTest:
    """Test that the mean of differences over folds is zero, although folds share training images.

    Var = (1/k + n_test/n_train) s², df = k - 1 (Nadeau and Bengio 2003, eq. 9).

    Args:
        differences: [k], one a fold (seeds averaged within the fold).
        test_share: share of the images that a fold holds out, in (0, 1): 1/k for k folds.
    """
    values = np.asarray(differences, dtype=np.float64)
    folds = len(values)
    if folds < 2:
        return TTest(float(values.mean()) if folds else math.nan, math.nan, math.nan, math.nan, math.nan)
    mean = math.fsum(values) / folds
    error = math.sqrt((1 / folds + test_share / (1 - test_share)) * float(values.var(ddof=1)))
    if _negligible(error, values, values):
        return TTest(mean, 0.0, folds - 1, math.nan, math.nan)
    return TTest(mean, error, folds - 1, _two_sided(mean / error, folds - 1), _upper_tail(mean / error, folds - 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number, step-down (Holm, Scand. J. Statist. 6 (1979), 65), in the order given."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - i) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def power(found: Difference, seeds: tuple[int, int], *, case_df: float, confidence: float) -> Power:
    """What ``found`` (of ``difference``) says about the reach of the study, by the noncentral t distribution.

    Args:
        found: the difference of two losses.
        seeds: how many seeds each had.
        case_df: as for ``difference``.
        confidence: 1 - the two-sided level at which a difference is claimed.
    """
    level = 1 - confidence
    if found.patients_only:
        return Power(_detectable(math.sqrt(found.case_variance), case_df, level), None)
    if not found.standard_error or found.df is None:
        return Power(None, None)
    detectable = _detectable(found.standard_error, found.df, level)
    if not found.mean:
        return Power(detectable, None)
    variances = tuple(part * n for part, n in zip(found.training_parts, seeds, strict=True))

    def reached(count: int) -> bool:
        parts = (variances[0] / count, variances[1] / count)
        error, df = _error(parts, (count, count), found.case_variance, case_df, confidence)
        return error > 0 and _power(abs(found.mean) / error, df, level) >= POWER

    if not reached(_MOST_SEEDS):
        return Power(detectable, None)
    low, high = 2, _MOST_SEEDS
    while low < high:  # more seeds never have less power
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return Power(detectable, low)


def _between(covariance: Floats) -> float:
    """Mean covariance between two different seeds."""
    seeds = len(covariance)
    return float((covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))


def _error(
    training: tuple[float, float], seeds: tuple[int, int], case: float, case_df: float, confidence: float
) -> tuple[float, float]:
    """Standard error of a difference and its degrees of freedom, from s²/S of each and the variance over patients."""
    most = _DF_OF_TWO_SEEDS if min(seeds) == 2 else math.inf
    total, df = _total(training, seeds, case, case_df)
    found = (math.sqrt(total), min(df, most))
    if seeds[0] == seeds[1]:
        return found
    within = sum(seeds) - len(seeds)
    pooled = math.fsum(part * n * (n - 1) for part, n in zip(training, seeds, strict=True)) / within
    part = pooled * (1 / seeds[0] + 1 / seeds[1])
    total, df = _total((part,), (within + 1,), case, case_df)
    return max(found, (math.sqrt(total), min(df, most)), key=lambda pair: pair[0] * t_quantile(pair[1], confidence))


def _total(training: Sequence[float], seeds: Sequence[int], case: float, case_df: float) -> tuple[float, float]:
    """Variance and its degrees of freedom (Satterthwaite; Hillis 2014 for readers nested in treatments)."""
    total = math.fsum([*training, case])
    spent = math.fsum(part**2 / (n - 1) for part, n in zip(training, seeds, strict=True))
    spent += case**2 / max(case_df, 1.0)
    return total, total**2 / spent if spent > 0 else 1.0


def _rounding(*values: Floats) -> float:
    return 1e-12 * max(1.0, *(float(np.abs(v).max()) for v in values))


def _negligible(error: float, *values: Floats) -> bool:
    return error <= _rounding(*values)


def _limits(mean: float, error: float, df: float, confidence: float) -> tuple[float | None, float | None]:
    if error == 0:
        return None, None
    reach = t_quantile(df, confidence) * error
    return mean - reach, mean + reach


def _two_sided(statistic: float, df: float) -> float:
    return 2 * _upper_tail(abs(statistic), df)


def _upper_tail(statistic: float, df: float) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - takes a second

    return float(stdtr(df, -statistic))


def _power(shift: float, df: float, level: float) -> float:
    """Probability that a t statistic with noncentrality ``shift`` is significant on the right side."""
    from scipy.special import nctdtr  # noqa: PLC0415

    return 1 - float(nctdtr(df, shift, t_quantile(df, 1 - level)))


def _detectable(error: float, df: float, level: float) -> float | None:
    if error == 0:
        return None
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, df, level) >= POWER else (middle, high)
    return high * error
