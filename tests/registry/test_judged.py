"""A verdict with its alarms: in which order, each once, and what can be added to it."""

from __future__ import annotations

import pytest

from raregrade.config import AlarmConfig, GateRule
from raregrade.evaluation.alarms import Alarm
from raregrade.registry.judged import Judged

CALIBRATION = Alarm("calibration_worse", "val", None, "has misleading probabilities")
NEVER = Alarm("never_predicted", "test", "severe", "never predicts severe (the champion finds 9)")
FLOOR = [GateRule(metric="val_qwk", threshold=0.4)]


def _judged(*alarms: Alarm, qwk: float = 0.9, refuse: bool = True) -> Judged:
    config = AlarmConfig(refuse=refuse)
    return Judged.by(FLOOR, {"val_qwk": qwk}, None, model="cdw_ce", alarms=alarms, config=config)


def test_the_worst_alarm_is_the_first_reason_and_rules_come_last() -> None:
    verdict = _judged(CALIBRATION, NEVER, qwk=0.3).verdict
    assert verdict.refusals == (
        "cdw_ce never predicts severe (the champion finds 9)",
        "cdw_ce has misleading probabilities",
        "val_qwk 0.3000 is below the floor of 0.4",
    )


def test_of_two_alarms_of_a_kind_about_a_class_the_first_counts() -> None:
    against_baseline = Alarm("never_predicted", "test", "severe", "never predicts severe (ce finds 12)")
    on_val = Alarm("never_predicted", "val", "severe", "never predicts severe on val")
    assert _judged(NEVER, against_baseline, on_val).alarms == (NEVER, on_val)
    assert _judged(NEVER, on_val, NEVER, on_val).alarms == (NEVER, on_val)
    assert _judged(on_val, NEVER).verdict.refusals == ("cdw_ce never predicts severe (the champion finds 9)",)


@pytest.mark.parametrize(("refuse", "passed"), [(True, False), (False, True)])
def test_alarms_refuse_unless_they_are_let_pass(refuse: bool, passed: bool) -> None:
    judged = _judged(NEVER, refuse=refuse)
    assert judged.verdict.passed is passed
    assert judged.sentences("cdw_ce") == ["cdw_ce never predicts severe (the champion finds 9)"]


def test_a_further_reason_refuses_and_a_remark_does_not() -> None:
    sound = _judged()
    assert sound.verdict.passed
    assert sound.remarking("not looked at").verdict.remarks[-1] == "not looked at"
    assert sound.remarking("not looked at").verdict.passed
    assert _judged(NEVER).refusing("other labels").verdict.refusals[-1] == "other labels"
    assert not sound.refusing("other labels").verdict.passed
