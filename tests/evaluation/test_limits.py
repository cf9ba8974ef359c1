"""Limits of intervals against textbook formulas, at their ends, and for patients with several images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raregrade.evaluation.limits import (
    auroc_limits,
    f1_limits,
    jackknife_df,
    scaled_limits,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(("hits", "trials"), [(0, 9), (3, 9), (9, 9), (47, 50), (1, 1)])
def test_one_image_a_patient_has_the_interval_of_wilson(hits: int, trials: int) -> None:
    found = wilson(np.arange(trials) < hits, np.ones(trials), 0.95)
    expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_images_that_agree_somewhat_count_as_the_design_effect_says() -> None:
    # Both images hit in three patients, one in four, none in three: a variance of 10/9 · 6 / 20² over patients, which
    # is that of 15 independent images and not of 20.
    low, high = wilson(np.array([2] * 3 + [1] * 4 + [0] * 3), np.full(10, 2), 0.95)
    z = stats.norm.ppf(0.975)
    reach = z / (1 + z**2 / 15) * math.sqrt(0.25 / 15 + z**2 / (4 * 15**2))
    assert (low, high) == pytest.approx((0.5 - reach, 0.5 + reach))


@given(st.integers(0, 12), st.integers(1, 5))
def test_images_that_are_all_alike_count_as_one_a_patient(hits: int, images: int) -> None:
    one = wilson(np.arange(12) < hits, np.ones(12), 0.95)
    several = wilson(images * (np.arange(12) < hits), np.full(12, images), 0.95)
    if images > 1:
        assert several == pytest.approx(one, abs=0.005)


def test_disagreeing_images_of_a_patient_count_at_most_as_themselves() -> None:
    # One hit of two in each patient: no variance over patients at all.
    found = wilson(np.ones(20), np.full(20, 2), 0.95)
    expected = stats.binomtest(20, 40).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_limits_of_shares_and_of_f1_enclose_the_value_and_stay_inside(rows: list[tuple[int, int]]) -> None:
    hits = np.array([min(h, n) for h, n in rows])
    trials = np.array([n for _, n in rows])
    if not trials.sum():
        return
    share = hits.sum() / trials.sum()
    for value, (low, high) in (
        (share, wilson(hits, trials, 0.95)),
        (2 * share / (1 + share), f1_limits(hits, trials, 0.95)),
    ):
        assert 0 <= low <= value + 1e-12
        assert value - 1e-12 <= high <= 1
        assert low < high
        assert (low == pytest.approx(0, abs=1e-12)) == (value == 0)
        assert (high == pytest.approx(1, abs=1e-12)) == (value == 1)


def test_f1_of_one_image_a_patient_is_the_transformed_interval_of_wilson() -> None:
    hits = np.array([1] * 6 + [0] * 8)
    low, high = wilson(hits, np.ones(14), 0.9)
    assert f1_limits(hits, np.ones(14), 0.9) == (2 * low / (1 + low), 2 * high / (1 + high))


def area_without_each(positive: np.ndarray, negative: np.ndarray) -> tuple[float, np.ndarray]:
    won = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    without = [np.delete(won, i, axis=0).mean() for i in range(len(positive))]
    return float(won.mean()), np.array(without + [np.delete(won, j, axis=1).mean() for j in range(len(negative))])


def limits_of(positive: np.ndarray, negative: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    area, without = area_without_each(positive, negative)
    is_positive = np.arange(len(without)) < len(positive)
    low, high = auroc_limits(area, without, is_positive.astype(int), (~is_positive).astype(int), confidence)
    return area, low, high


def test_auroc_of_many_patients_has_the_interval_of_delong() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(0.8, 1, 900), rng.normal(0, 1, 1200)
    area, low, high = limits_of(positive, negative)
    won = positive[:, None] > negative
    error = math.sqrt(won.mean(axis=1).var(ddof=1) / 900 + won.mean(axis=0).var(ddof=1) / 1200)  # DeLong et al. 1988
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.02)
    assert (low + high) / 2 == pytest.approx(area, abs=0.1 * error)


def test_auroc_limits_solve_the_score_equation_of_newcombe() -> None:
    """At a limit L the estimate lies t standard errors from L, with the error that Hanley and McNeil give for L."""
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(1.5, 1, 15), rng.normal(0, 1, 60)
    area, low, high = limits_of(positive, negative)
    _, without = area_without_each(positive, negative)
    variance = ((without - without.mean()) ** 2).sum() * 74 / 75

    def hanley_mcneil(a: float) -> float:
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        return (a * (1 - a) + 14 * (q1 - a * a) + 59 * (q2 - a * a)) / (15 * 60)

    ratio = min(variance / hanley_mcneil(area), 1.0)
    for limit in (low, high):
        distance = abs(area - limit) / math.sqrt(ratio * hanley_mcneil(limit))
        assert distance == pytest.approx(t_quantile(jackknife_df(without), 0.95), rel=1e-6)


def test_perfect_separation_has_an_interval_that_shrinks_with_patients() -> None:
    lows = []
    for count in (8, 30, 200):
        area, low, high = limits_of(np.arange(count) + 100.0, np.arange(100.0))
        assert (area, high) == (1, 1)
        lows.append(low)
    assert 0.5 < lows[0] < lows[1] < lows[2] < 1


def test_several_alike_images_widen_the_interval_of_auroc() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(1, 1, 12), rng.normal(0, 1, 40)
    area, without = area_without_each(positive, negative)
    is_positive = np.arange(52) < 12
    one = auroc_limits(area, without, is_positive.astype(int), (~is_positive).astype(int), 0.95)
    three = auroc_limits(area, without, 3 * is_positive, 3 * ~is_positive, 0.95)
    assert three == pytest.approx(one, abs=0.03)


@pytest.mark.parametrize(
    ("name", "there", "back"),
    [
        ("qwk", math.atanh, math.tanh),
        ("mae", math.log, math.exp),
        ("macro_f1", lambda v: math.log(v / (1 - v)), lambda x: 1 / (1 + math.exp(-x))),
    ],
)
def test_each_metric_has_a_t_interval_on_its_scale(name: str, there: object, back: object) -> None:
    low, high = scaled_limits(name, 0.7, 0.05, 9, 0.95) or (0, 0)
    step = 1e-6
    slope = (there(0.7 + step) - there(0.7 - step)) / (2 * step)  # type: ignore[operator]
    reach = stats.t.ppf(0.975, 9) * 0.05 * slope
    assert low == pytest.approx(back(there(0.7) - reach), rel=1e-6)  # type: ignore[operator]
    assert high == pytest.approx(back(there(0.7) + reach), rel=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize(("name", "value", "error"), [("qwk", 1.0, 0.1), ("auroc", 0.9, 0.0), ("mae", 0.0, 0.1)])
def test_a_value_at_the_end_of_its_scale_has_no_limits(name: str, value: float, error: float) -> None:
    assert scaled_limits(name, value, error, 20, 0.95) is None


def test_degrees_of_freedom_are_few_where_few_patients_decide() -> None:
    assert jackknife_df(np.array([1.0, -1.0] * 50)) == 99
    decided_by_two = np.zeros(1000)
    decided_by_two[:2] = (1.0, -1.0)
    assert jackknife_df(decided_by_two) == pytest.approx(4, rel=0.01)
    normal = np.random.default_rng(4).normal(size=3000)
    assert jackknife_df(normal) == pytest.approx(3000, rel=0.1)  # Var(u²) = 2 for a normal u


def test_quantiles_are_those_of_the_t_table() -> None:
    assert t_quantile(2, 0.95) == pytest.approx(4.302653, rel=1e-6)
    assert t_quantile(math.inf, 0.95) == pytest.approx(1.959964, rel=1e-6)
    assert t_quantile(0.3, 0.9) == t_quantile(1, 0.9) == pytest.approx(6.313752, rel=1e-6)
