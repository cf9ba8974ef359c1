"""The sections ``gate``, ``alarms`` and ``register``: what is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from raregrade.config import AlarmConfig, GateRule, RegisterConfig
from raregrade.config.gate import gate_problems

CLASSES = ["none", "severe"]


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../other", "a/b", "a\\b", "a b", "a:b", "a@b", "-a", "a'b", "x" * 257]
)
def test_what_is_no_name_or_cannot_be_addressed_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        RegisterConfig(name=name)


@pytest.mark.parametrize("name", ["phantom-severity", "retina_v2.1", "größe", "_a", "1"])
def test_names_that_mlflow_and_its_addresses_take_are_taken(name: str) -> None:
    assert RegisterConfig(name=name).name == name


def test_nothing_else_than_what_is_clearly_better_is_registered_by_default() -> None:
    assert RegisterConfig().when == "clearly_better"
    assert AlarmConfig().refuse


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"metric": "test_qwk"}, "give threshold, min_absolute_change, superior or non_inferior"),
        ({"metric": "qwk", "superior": True}, "is not a metric of a split"),
        ({"metric": "test_qwk", "threshold": 0.4}, "read val_\\* metrics only"),
        ({"metric": "test_qwk", "superior": True, "min_absolute_change": 0.0}, "read val_\\* metrics only"),
        ({"metric": "test_qwk", "superior": False}, "superior"),
        ({"metric": "test_qwk", "non_inferior": 0.0}, "greater than 0"),
        ({"metric": "test_qwk", "non_inferior": -0.02}, "greater than 0"),
    ],
)
def test_a_rule_that_asks_for_nothing_or_the_wrong_thing_is_refused(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        GateRule.model_validate(rule)


def test_a_rule_may_test_either_split_and_several_things_at_once() -> None:
    rule = GateRule(metric="val_qwk", threshold=0.4, superior=True, non_inferior=0.02)
    assert (rule.threshold, rule.superior, rule.non_inferior) == (0.4, True, 0.02)
    assert GateRule(metric="test_mae", superior=True).greater_is_better is False


def test_an_unknown_metric_or_class_is_named_with_what_there_is() -> None:
    rules = [GateRule(metric="test_qwk", superior=True), GateRule(metric="test_f1_mild", superior=True)]
    problems = gate_problems(rules, AlarmConfig(guard=["severe", "mild"]), CLASSES, ["qwk"])
    assert problems == [
        "gate.1.metric: 'test_f1_mild' is not computed for these labels; "
        "allowed: test_qwk, test_f1_none, test_f1_severe",
        "alarms.guard: 'mild' is not a class; the classes are none, severe",
    ]
