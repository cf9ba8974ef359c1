"""The gate on plain numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import GateRule
from raregrade.registry.gate import Reference, evaluate_gate

CHAMPION = "champion (version 3)"


def _against(metrics: dict[str, float], candidate: dict[str, float], is_candidate: bool = False) -> Reference:
    return Reference(CHAMPION, metrics, candidate, is_candidate)


def test_a_floor_is_reached_or_not_and_both_numbers_are_named() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4)
    passed = evaluate_gate([rule], {"val_qwk": 0.4})
    assert passed.passed
    assert passed.reasons == ("val_qwk 0.4000 reaches the floor of 0.4",)
    refused = evaluate_gate([rule], {"val_qwk": 0.3999})
    assert not refused.passed
    assert refused.reasons == ("val_qwk 0.3999 is below the floor of 0.4",)


def test_where_lower_is_better_the_threshold_is_a_ceiling() -> None:
    rule = GateRule(metric="val_mae", threshold=0.5)
    assert evaluate_gate([rule], {"val_mae": 0.4}).passed
    assert evaluate_gate([rule], {"val_mae": 0.6}).reasons == ("val_mae 0.6000 is above the ceiling of 0.5",)


def test_gate_refuses_a_challenger_that_is_worse_on_the_rarest_class() -> None:
    rules = [
        GateRule(metric="val_qwk", threshold=0.5, min_absolute_change=0.0),
        GateRule(metric="val_f1_severe", min_absolute_change=-0.02),
    ]
    candidate = {"val_qwk": 0.8, "val_f1_severe": 0.30}
    verdict = evaluate_gate(rules, candidate, _against({"val_qwk": 0.7, "val_f1_severe": 0.35}, candidate))
    assert not verdict.passed
    assert verdict.reasons[0] == (
        "val_f1_severe 0.3000 against 0.3500 of the champion (version 3): "
        "better by -0.0500, less than the -0.02 asked for"
    )
    assert len(verdict.reasons) == 3


@pytest.mark.parametrize(("new", "passes"), [(0.30, True), (0.2999, False)])
def test_the_least_improvement_counts_as_enough_in_spite_of_rounding(new: float, passes: bool) -> None:
    rule = GateRule(metric="val_qwk", min_absolute_change=0.02)
    candidate = {"val_qwk": new}
    assert evaluate_gate([rule], candidate, _against({"val_qwk": 0.28}, candidate)).passed is passes


def test_where_lower_is_better_an_improvement_is_a_decrease() -> None:
    rule = GateRule(metric="val_mae", min_absolute_change=0.1)
    for new, passes in ((0.3, True), (0.45, False), (0.6, False)):
        candidate = {"val_mae": new}
        assert evaluate_gate([rule], candidate, _against({"val_mae": 0.5}, candidate)).passed is passes


def test_floors_read_the_one_model_and_improvement_reads_the_means() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.5, min_absolute_change=0.0)
    lucky = evaluate_gate([rule], {"val_qwk": 0.9}, _against({"val_qwk": 0.7}, {"val_qwk": 0.6}))
    assert not lucky.passed
    unlucky = evaluate_gate([rule], {"val_qwk": 0.4}, _against({"val_qwk": 0.5}, {"val_qwk": 0.6}))
    assert not unlucky.passed


def test_a_baseline_that_wins_need_not_improve_on_itself() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4, min_absolute_change=0.1)
    metrics = {"val_qwk": 0.6}
    assert evaluate_gate([rule], metrics, _against(metrics, metrics, is_candidate=True)).passed


def test_without_anything_to_improve_on_floors_decide() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4, min_absolute_change=0.1)
    assert evaluate_gate([rule], {"val_qwk": 0.5}, None).passed
    assert not evaluate_gate([rule], {"val_qwk": 0.3}, None).passed


def test_a_metric_that_is_missing_or_not_a_number_on_either_side_is_a_refusal() -> None:
    floor = GateRule(metric="val_qwk", threshold=0.0)
    change = GateRule(metric="val_qwk", min_absolute_change=-1.0)
    nan = float("nan")
    assert not evaluate_gate([floor], {"val_mae": 0.1}).passed
    assert not evaluate_gate([floor], {"val_qwk": nan}).passed
    for new, old in (({}, {"val_qwk": 0.1}), ({"val_qwk": 0.1}, {}), ({"val_qwk": 0.1}, {"val_qwk": nan})):
        verdict = evaluate_gate([change], new, _against(old, new))
        assert not verdict.passed
        assert "is not known" in verdict.reasons[0]


def test_a_gate_without_rules_says_so() -> None:
    assert evaluate_gate([], {}).reasons == ("the gate has no rules",)


unit = st.floats(0, 1)


@given(unit, unit, unit, st.floats(-1, 1))
def test_a_better_candidate_never_fares_worse(low: float, more: float, old: float, least: float) -> None:
    rule = GateRule(metric="val_qwk", threshold=0.5, min_absolute_change=least)
    worse, better = {"val_qwk": low}, {"val_qwk": low + more}
    if evaluate_gate([rule], worse, _against({"val_qwk": old}, worse)).passed:
        assert evaluate_gate([rule], better, _against({"val_qwk": old}, better)).passed
