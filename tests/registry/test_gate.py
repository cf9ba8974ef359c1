"""The gate on plain numbers."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import GateRule
from raregrade.registry.gate import PairedDifference, Reference, evaluate_gate

CHAMPION = "the champion (version 3)"
SUPERIOR = GateRule(metric="test_qwk", superior=True)
NON_INFERIOR = GateRule(metric="test_qwk", non_inferior=0.02)


def _against(metrics: dict[str, float], candidate: dict[str, float], is_candidate: bool = False) -> Reference:
    return Reference(CHAMPION, metrics, candidate, is_candidate)


def _tested(mean: float, error: float, df: float | None = 10.0, metric: str = "test_qwk") -> Reference:
    return Reference(CHAMPION, {}, {}, differences={metric: PairedDifference(mean, error, df)})


def test_a_floor_is_reached_or_not_and_both_numbers_are_named() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4)
    passed = evaluate_gate([rule], {"val_qwk": 0.4})
    assert (passed.passed, passed.refusals) == (True, ())
    assert passed.remarks == ("val_qwk 0.4000 reaches the floor of 0.4",)
    refused = evaluate_gate([rule], {"val_qwk": 0.3999})
    assert not refused.passed
    assert refused.refusals == ("val_qwk 0.3999 is below the floor of 0.4",)
    assert refused.remarks == ()


def test_where_lower_is_better_the_threshold_is_a_ceiling() -> None:
    rule = GateRule(metric="val_mae", threshold=0.5)
    assert evaluate_gate([rule], {"val_mae": 0.4}).passed
    assert evaluate_gate([rule], {"val_mae": 0.6}).refusals == ("val_mae 0.6000 is above the ceiling of 0.5",)


def test_gate_refuses_a_challenger_that_is_worse_on_the_rarest_class() -> None:
    rules = [
        GateRule(metric="val_qwk", threshold=0.5, min_absolute_change=0.0),
        GateRule(metric="val_f1_severe", min_absolute_change=-0.02),
    ]
    candidate = {"val_qwk": 0.8, "val_f1_severe": 0.30}
    verdict = evaluate_gate(rules, candidate, _against({"val_qwk": 0.7, "val_f1_severe": 0.35}, candidate))
    assert not verdict.passed
    assert verdict.refusals == (
        "val_f1_severe 0.3000 against 0.3500 of the champion (version 3): "
        "better by -0.0500, less than the -0.02 asked for",
    )
    assert len(verdict.remarks) == 2


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


# t at 0.975 with 10 degrees of freedom is 2.2281, so 0.02 +- 0.0223 and 0.03 +- 0.0223.
@pytest.mark.parametrize(("mean", "passes"), [(0.03, True), (0.02, False), (0.0, False), (-0.03, False)])
def test_superior_needs_an_interval_above_zero(mean: float, passes: bool) -> None:
    verdict = evaluate_gate([SUPERIOR], {}, _tested(mean, 0.01))
    assert verdict.passed is passes


def test_a_test_names_the_difference_and_its_interval_whatever_comes_out() -> None:
    shown = evaluate_gate([SUPERIOR], {}, _tested(0.03, 0.01))
    assert shown.remarks == (
        "test_qwk is better than that of the champion (version 3): better by +0.0300 [+0.0077, +0.0523]",
    )
    refused = evaluate_gate([SUPERIOR], {}, _tested(0.02, 0.01))
    assert refused.refusals == (
        "test_qwk is not shown to be better than that of the champion (version 3): "
        "better by +0.0200 [-0.0023, +0.0423]",
    )


# The lower end is mean - 0.0223.
@pytest.mark.parametrize(("mean", "passes"), [(0.01, True), (0.0, False), (0.0024, True), (0.0022, False)])
def test_non_inferior_needs_an_interval_above_the_margin(mean: float, passes: bool) -> None:
    verdict = evaluate_gate([NON_INFERIOR], {}, _tested(mean, 0.01))
    assert verdict.passed is passes
    sentence = (verdict.remarks or verdict.refusals)[0]
    assert "less than 0.02 worse than that of the champion (version 3)" in sentence
    assert ("is not shown to be" in sentence) is not passes


def test_models_that_decide_alike_are_neither_better_nor_worse() -> None:
    alike = _tested(0.0, 0.0, None)
    assert not evaluate_gate([SUPERIOR], {}, alike).passed
    assert evaluate_gate([NON_INFERIOR], {}, alike).passed


def test_a_difference_that_nothing_varies_proves_nothing() -> None:
    assert not evaluate_gate([SUPERIOR], {}, _tested(0.5, 0.0, None)).passed
    assert not evaluate_gate([NON_INFERIOR], {}, _tested(0.5, 0.0, None)).passed


def test_where_lower_is_better_a_test_asks_for_a_decrease() -> None:
    rule = GateRule(metric="test_mae", superior=True)
    assert evaluate_gate([rule], {}, _tested(-0.03, 0.01, metric="test_mae")).passed
    refused = evaluate_gate([rule], {}, _tested(0.03, 0.01, metric="test_mae"))
    assert "better by -0.0300 [-0.0523, -0.0077]" in refused.refusals[0]


def test_a_test_that_was_not_made_is_refused_with_what_to_do() -> None:
    reference = Reference(CHAMPION, {}, {}, untested="Give the prepared dataset")
    for rule in (SUPERIOR, NON_INFERIOR):
        (sentence,) = evaluate_gate([rule], {"test_qwk": 0.9}, reference).refusals
        assert sentence.startswith("test_qwk is not shown to be ")
        assert sentence.endswith("of the champion (version 3): Give the prepared dataset")
    (sentence,) = evaluate_gate([SUPERIOR], {}, _tested(math.nan, 0.0, None)).refusals
    assert "too few patients" in sentence


def test_a_baseline_that_is_recommended_need_not_be_better_than_itself() -> None:
    rules = [GateRule(metric="val_qwk", threshold=0.4, min_absolute_change=0.1), SUPERIOR, NON_INFERIOR]
    metrics = {"val_qwk": 0.6}
    itself = Reference("the baseline ce", metrics, metrics, is_candidate=True)
    verdict = evaluate_gate(rules, metrics, itself)
    assert verdict.passed
    assert verdict.remarks[1:] == (
        "val_qwk: the candidate is the baseline ce itself",
        "test_qwk: the candidate is the baseline ce itself",
        "test_qwk: the candidate is the baseline ce itself",
    )


def test_without_anything_to_be_held_against_floors_decide() -> None:
    rules = [GateRule(metric="val_qwk", threshold=0.4, min_absolute_change=0.1), SUPERIOR]
    assert evaluate_gate(rules, {"val_qwk": 0.5}, None).passed
    assert not evaluate_gate(rules, {"val_qwk": 0.3}, None).passed


def test_a_missing_or_undefined_metric_on_either_side_refuses() -> None:
    floor = GateRule(metric="val_qwk", threshold=0.0)
    change = GateRule(metric="val_qwk", min_absolute_change=-1.0)
    nan = float("nan")
    assert not evaluate_gate([floor], {"val_mae": 0.1}).passed
    assert not evaluate_gate([floor], {"val_qwk": nan}).passed
    for new, old in (({}, {"val_qwk": 0.1}), ({"val_qwk": 0.1}, {}), ({"val_qwk": 0.1}, {"val_qwk": nan})):
        verdict = evaluate_gate([change], new, _against(old, new))
        assert not verdict.passed
        assert "is not known" in verdict.refusals[0]


def test_an_alarm_refuses_before_any_rule_however_good_the_numbers_are() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4)
    verdict = evaluate_gate([rule], {"val_qwk": 0.9}, alarms=["cdw_ce never predicts severe"])
    assert verdict.refusals == ("cdw_ce never predicts severe",)
    verdict = evaluate_gate([rule], {"val_qwk": 0.3}, alarms=["cdw_ce never predicts severe"])
    assert verdict.refusals == ("cdw_ce never predicts severe", "val_qwk 0.3000 is below the floor of 0.4")


def test_an_alarm_that_is_let_pass_is_remarked_on() -> None:
    verdict = evaluate_gate([], {}, alarms=["cdw_ce never predicts severe"], refuse=False)
    assert verdict.passed
    assert verdict.remarks[0] == "alarm, let pass by alarms.refuse: cdw_ce never predicts severe"


def test_a_gate_without_rules_says_so() -> None:
    assert evaluate_gate([], {}).remarks == ("the gate has no rules",)


def test_a_reference_survives_recording_and_an_old_record_has_no_tests() -> None:
    reference = _tested(0.03, 0.01)
    recorded = json.loads(json.dumps(dataclasses.asdict(reference)))
    assert Reference.from_json(recorded) == reference
    earlier = {"name": "baseline ce", "metrics": {}, "candidate": {}, "is_candidate": False}
    assert Reference.from_json(earlier).differences == {}


unit = st.floats(0, 1)


@given(unit, unit, unit, st.floats(-1, 1))
def test_a_better_candidate_never_fares_worse(low: float, more: float, old: float, least: float) -> None:
    rule = GateRule(metric="val_qwk", threshold=0.5, min_absolute_change=least)
    worse, better = {"val_qwk": low}, {"val_qwk": low + more}
    if evaluate_gate([rule], worse, _against({"val_qwk": old}, worse)).passed:
        assert evaluate_gate([rule], better, _against({"val_qwk": old}, better)).passed


@given(st.floats(-0.5, 0.5), st.floats(1e-6, 0.2), st.floats(1, 500))
def test_what_is_superior_is_not_inferior_either(mean: float, error: float, df: float) -> None:
    reference = _tested(mean, error, df)
    if evaluate_gate([SUPERIOR], {}, reference).passed:
        assert mean > 0
        assert evaluate_gate([NON_INFERIOR], {}, reference).passed
