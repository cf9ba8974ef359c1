"""The tests between losses: published examples, textbook formulas, invariances, and what they let pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raregrade.evaluation.mrmc import (
    Difference,
    corrected_resampled_t,
    difference,
    holm,
    mean_interval,
    power,
)

# Van Dyke et al. 1993: AUC of five readers under two treatments, with the covariances that the R packages MRMCaov and
# RJafroc print for these data (jackknife; Cov2 of each treatment alone, and Cov2 and Cov3 over both).
SPIN_ECHO = [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066]
CINE = [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169]
COV2, COV3 = 0.0003440748, 0.0002390284

seeds = st.lists(st.floats(-1, 1), min_size=2, max_size=6)


def covariance(sizes: tuple[int, ...], within: float, between: float = 0.0, own: float = 0.001) -> np.ndarray:
    """``own`` on the diagonal, ``within`` between seeds of one loss, ``between`` between those of two."""
    loss = np.repeat(np.arange(len(sizes)), sizes)
    matrix = np.where(loss[:, None] == loss, within, between)
    return np.where(np.eye(len(loss), dtype=bool), own, matrix)


def compared(a: Any, b: Any, *, within: float = 0.0002, between: float = 0.0001, case_df: float = 100) -> Difference:
    matrix = covariance((len(a), len(b)), within, between)
    return difference(a, b, matrix, case_df=case_df, confidence=0.95)


@pytest.mark.parametrize(
    ("readers", "cov2", "printed"),
    [
        (SPIN_ECHO, 0.0004839618, (0.8970370, 0.03317360, 12.74465, 0.8252236, 0.9688505)),
        (CINE, 0.0002041879, (0.9408374, 0.02156637, 12.71019, 0.8941378, 0.9875369)),
    ],
)
def test_mean_over_readers_equals_the_printed_analysis_of_van_dyke(
    readers: list[float], cov2: float, printed: tuple[float, ...]
) -> None:
    found = mean_interval(readers, covariance((5,), cov2), case_df=math.inf, confidence=0.95)
    assert (found.mean, found.standard_error, found.df, found.low, found.high) == pytest.approx(printed, rel=2e-6)
    assert not found.patients_only


@pytest.mark.parametrize("patients", [0.05, 0.3])
def test_mean_over_two_seeds_covers_what_training_gives_on_average(patients: float) -> None:
    """Training adds most of the variance, which two values hardly know."""
    rng = np.random.default_rng(8)
    matrix, times, covered = covariance((2,), patients, own=patients + 0.1), 3000, 0
    for _ in range(times):
        values = rng.normal(rng.normal(0, math.sqrt(patients)), 1, 2)
        found = mean_interval(values, matrix, case_df=80, confidence=0.95)
        covered += found.low is not None and found.high is not None and found.low <= 0 <= found.high
    assert covered / times >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / times)


def test_difference_equals_the_nested_anova_of_hillis() -> None:
    """Hillis 2014, readers nested in treatments: F = MS(T) / (MS[R(T)] + J max(Cov2 - Cov3, 0))."""
    table, count = np.array([SPIN_ECHO, CINE]), 5
    ms_treatment = count * table.mean(axis=1).var(ddof=1)
    ms_readers = table.var(axis=1, ddof=1).mean()
    statistic = ms_treatment / (ms_readers + count * (COV2 - COV3))
    found = compared(SPIN_ECHO, CINE, within=COV2, between=COV3, case_df=math.inf)
    assert found.standard_error is not None
    assert (found.mean / found.standard_error) ** 2 == pytest.approx(statistic, rel=1e-9)
    assert found.training_variance == pytest.approx(2 * ms_readers / count)
    assert found.case_variance == pytest.approx(2 * (COV2 - COV3))


def test_degrees_of_freedom_are_hillis_if_both_losses_vary_alike() -> None:
    a = np.array(SPIN_ECHO)
    found = compared(a, a + 0.05, within=COV2, between=COV3, case_df=math.inf)
    mean_square, case = a.var(ddof=1), 5 * (COV2 - COV3)
    expected = (mean_square + case) ** 2 / (mean_square**2 / (2 * (5 - 1)))
    assert found.df == pytest.approx(expected, rel=1e-9)
    t = abs(found.mean) / math.sqrt(2 / 5 * (mean_square + case))
    assert found.p == pytest.approx(stats.f.sf(t**2, 1, expected), rel=1e-9)


def test_few_patients_leave_few_degrees_of_freedom() -> None:
    a, b, training, case = [0.61, 0.60, 0.59], [0.58, 0.57, 0.56], 0.0001 / 3, 2 * (0.0002 - 0.0001)
    found = compared(a, b, within=0.0002, between=0.0001, case_df=9)
    expected = (2 * training + case) ** 2 / (2 * training**2 / (3 - 1) + case**2 / 9)
    assert found.df == pytest.approx(expected, rel=1e-9)
    assert compared([0.6] * 3, [0.5] * 3, case_df=9).df == pytest.approx(9)  # the patients alone


def test_without_patients_in_it_the_test_is_the_one_of_welch() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.6, 0.02, 5), rng.normal(0.58, 0.01, 5)
    found = compared(a, b, within=0, between=0)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.df == pytest.approx(expected.df, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_with_unequal_numbers_of_seeds_the_wider_interval_counts() -> None:
    rng = np.random.default_rng(3)
    many, few = rng.normal(0.6, 0.03, 8), np.array([0.55, 0.551, 0.549])
    welch, pooled = stats.ttest_ind(many, few, equal_var=False), stats.ttest_ind(many, few)
    assert pooled.pvalue > welch.pvalue  # the few happen to be steady
    assert compared(many, few, within=0, between=0).p == pytest.approx(pooled.pvalue, rel=1e-9)
    steady, wild = rng.normal(0.6, 0.001, 8), np.array([0.55, 0.62, 0.48])
    welch, pooled = stats.ttest_ind(steady, wild, equal_var=False), stats.ttest_ind(steady, wild)
    assert welch.pvalue > pooled.pvalue
    assert compared(steady, wild, within=0, between=0).p == pytest.approx(welch.pvalue, rel=1e-9)


def test_two_seeds_never_have_more_than_two_degrees_of_freedom() -> None:
    found = compared([0.60, 0.601], [0.50, 0.502], within=0.002, between=0.0)
    assert found.df == 2
    assert found.p is not None
    assert found.p > 0.05  # the normal would say 0.03 at most
    several = compared([0.60, 0.601, 0.599, 0.6], [0.50, 0.502], within=0.002, between=0.0)
    assert several.df == 2
    more = compared([0.60, 0.601, 0.599], [0.50, 0.502, 0.501], within=0.002, between=0.0)
    assert more.df is not None
    assert more.df > 50


@given(seeds, seeds, st.floats(0, 1e-3))
def test_swapping_the_losses_changes_the_sign_alone(a: list[float], b: list[float], between: float) -> None:
    one, other = compared(a, b, between=between), compared(b, a, between=between)
    assert other.mean == -one.mean
    assert other.p == pytest.approx(one.p)
    assert other.standard_error == pytest.approx(one.standard_error)
    if one.low is not None and one.high is not None:
        assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


@given(seeds, seeds, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(a: list[float], b: list[float], random: Any) -> None:
    shuffled = a.copy()
    random.shuffle(shuffled)
    assert compared(shuffled, b).p == pytest.approx(compared(a, b).p)


@given(seeds, seeds, st.floats(0.01, 100))
def test_a_metric_in_other_units_has_the_same_p_value(a: list[float], b: list[float], factor: float) -> None:
    matrix = covariance((len(a), len(b)), 0.0002, 0.0001)
    one = difference(a, b, matrix, case_df=50, confidence=0.95)
    scaled = [factor * v for v in a], [factor * v for v in b]
    other = difference(*scaled, factor**2 * matrix, case_df=50, confidence=0.95)
    assert other.p == pytest.approx(one.p)
    assert other.mean == pytest.approx(factor * one.mean)


@given(seeds, seeds, st.floats(0, 2e-4))
def test_p_is_significant_just_where_the_interval_excludes_zero(a: list[float], b: list[float], between: float) -> None:
    found = compared(a, b, between=between)
    if found.p is not None and found.low is not None and found.high is not None and abs(found.p - 0.05) > 1e-6:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_equal_losses_have_a_p_value_of_one() -> None:
    assert compared([0.5, 0.6, 0.7], [0.7, 0.5, 0.6]).p == pytest.approx(1)
    same = difference([0.5, 0.5], [0.5, 0.5], np.zeros((4, 4)), case_df=10, confidence=0.95)
    assert same.p == 1


def test_a_difference_that_nothing_varies_is_no_proof() -> None:
    found = difference([0.6, 0.6], [0.5, 0.5], np.zeros((4, 4)), case_df=10, confidence=0.95)
    assert (found.p, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize(("a", "b"), [([0.9], [0.1]), ([0.9], [0.1, 0.1]), ([0.9, 0.9, 0.9], [0.1])])
def test_one_seed_on_a_side_proves_nothing(a: list[float], b: list[float]) -> None:
    found = compared(a, b, within=0.0004)
    assert found.p is None
    assert found.standard_error is None
    assert found.patients_only
    weights = np.array([1 / len(a)] * len(a) + [-1 / len(b)] * len(b))
    error = math.sqrt(weights @ covariance((len(a), len(b)), 0.0004, 0.0001) @ weights)
    reach = stats.t.ppf(0.975, 100) * error
    assert (found.low, found.high) == pytest.approx((0.8 - reach, 0.8 + reach))


def test_variance_over_patients_that_is_negative_by_chance_counts_as_none() -> None:
    assert compared([0.5, 0.6, 0.55], [0.5, 0.62, 0.57], within=0.0001, between=0.0009).case_variance == 0


def test_a_covariance_of_other_models_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) for 2 and 2 seeds"):
        difference([1, 2], [1, 2], np.eye(3), case_df=10, confidence=0.95)


@pytest.mark.parametrize(
    ("sizes", "case"), [((3, 3), 0.0), ((3, 3), 1.0), ((5, 5), 0.3), ((2, 2), 0.1), ((10, 2), 0.1)]
)
def test_equal_losses_are_told_apart_in_at_most_one_of_twenty(sizes: tuple[int, int], case: float) -> None:
    rng = np.random.default_rng(4)
    times, claims = 3000, 0
    # Of s² = 1, half is what the patients add to each seed alone; ``case`` is what they add to a loss.
    matrix = covariance(sizes, within=case / 2, own=case / 2 + 0.5)
    for _ in range(times):
        shared = rng.normal(0, math.sqrt(case / 2), 2)
        a, b = (rng.normal(shift, 1, size) for shift, size in zip(shared, sizes, strict=True))
        found = difference(a, b, matrix, case_df=80, confidence=0.95)
        claims += found.p is not None and found.p <= 0.05
    assert claims / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)


def test_corrected_t_equals_its_formula() -> None:
    values = [0.02, 0.05, 0.01, 0.03, 0.04]
    found = corrected_resampled_t(values, 0.2)
    error = math.sqrt((1 / 5 + 0.2 / 0.8) * np.var(values, ddof=1))
    assert found.standard_error == pytest.approx(error)
    assert found.df == 4
    assert found.p == pytest.approx(2 * stats.t.sf(0.03 / error, 4))
    assert found.p_greater == pytest.approx(stats.t.sf(0.03 / error, 4))


def test_corrected_t_without_a_shared_part_is_the_paired_t_test() -> None:
    values = [0.02, -0.05, 0.01, 0.03]
    assert corrected_resampled_t(values, 0.0).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_corrected_t_holds_for_folds_that_share_training_images() -> None:
    """Nadeau and Bengio take the correlation of two folds to be the share that is held out."""
    rng = np.random.default_rng(5)
    folds, times = 5, 4000
    values = math.sqrt(1 / folds) * rng.normal(size=(times, 1)) + math.sqrt(1 - 1 / folds) * rng.normal(
        size=(times, folds)
    )
    rejected = np.mean([corrected_resampled_t(row, 1 / folds).p <= 0.05 for row in values])
    naive = np.mean(stats.ttest_1samp(values, 0, axis=1).pvalue <= 0.05)
    assert abs(rejected - 0.05) < 0.011
    assert naive > 0.1


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3, 0.3]])
def test_folds_that_show_no_spread_prove_nothing(values: list[float]) -> None:
    assert math.isnan(corrected_resampled_t(values, 0.2).p)


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm({"lmf": 0.04, "cdw": 0.01, "corn": 0.03}) == pytest.approx({"lmf": 0.06, "cdw": 0.03, "corn": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def expected_power(found: Difference, count: int, case_df: float) -> float:
    """Of ``count`` seeds per loss for the difference found, from its definition."""
    s2 = (found.training_parts[0] * 4, found.training_parts[1] * 4)
    parts = [v / count for v in s2]
    total = sum(parts) + found.case_variance
    df = total**2 / (sum(p**2 / (count - 1) for p in parts) + found.case_variance**2 / case_df)
    df = min(df, 2) if count == 2 else df
    return float(stats.nct.sf(stats.t.ppf(0.975, df), df, abs(found.mean) / math.sqrt(total)))


def test_seeds_needed_is_the_least_number_with_power_of_four_in_five() -> None:
    found = compared([0.61, 0.58, 0.63, 0.60], [0.59, 0.60, 0.57, 0.58], within=0.00011)
    needed = power(found, (4, 4), case_df=100, confidence=0.95).seeds_needed
    assert needed is not None
    assert needed > 4
    assert expected_power(found, needed, 100) >= 0.8 > expected_power(found, needed - 1, 100)


def test_detectable_difference_is_found_in_four_of_five_repetitions() -> None:
    rng = np.random.default_rng(6)
    matrix, sd = covariance((5, 5), 0.0002, 0.0001), 0.02
    case = 2 * (0.0002 - 0.0001)
    exact = difference(
        *(np.array([-1.2, -0.6, 0.0, 0.6, 1.2]) * sd / np.sqrt(0.9) + shift for shift in (0.01, 0.0)),
        matrix,
        case_df=100,
        confidence=0.95,
    )
    detectable = power(exact, (5, 5), case_df=100, confidence=0.95).detectable
    assert detectable is not None
    times, found = 2000, 0
    for _ in range(times):
        a = rng.normal(detectable + rng.normal(0, math.sqrt(case)), sd, 5)
        one = difference(a, rng.normal(0, sd, 5), matrix, case_df=100, confidence=0.95)
        found += one.p is not None and one.p <= 0.05 and one.mean > 0
    assert found / times == pytest.approx(0.8, abs=0.05)


def test_patients_that_are_too_few_cannot_be_made_up_for_by_seeds() -> None:
    found = compared([0.60, 0.61, 0.62], [0.59, 0.60, 0.61], within=0.01)
    assert power(found, (3, 3), case_df=20, confidence=0.95).seeds_needed is None


def test_with_one_seed_the_detectable_difference_is_that_of_the_patients() -> None:
    reach = power(compared([0.6], [0.5], within=0.0), (1, 1), case_df=100, confidence=0.95)
    error = math.sqrt(2 * 0.001 - 2 * 0.0001)
    shift = (reach.detectable or 0) / error
    assert stats.nct.sf(stats.t.ppf(0.975, 100), 100, shift) == pytest.approx(0.8, abs=1e-6)
    assert reach.seeds_needed is None


def test_no_difference_needs_no_number_of_seeds() -> None:
    reach = power(compared([0.5, 0.6], [0.6, 0.5]), (2, 2), case_df=100, confidence=0.95)
    assert reach.seeds_needed is None
    assert reach.detectable is not None
    nothing = difference([0.5, 0.5], [0.5, 0.5], np.zeros((4, 4)), case_df=10, confidence=0.95)
    assert power(nothing, (2, 2), case_df=10, confidence=0.95).detectable is None
