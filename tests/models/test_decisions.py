"""Decision rules: what each decides, and that CORN and CORAL decide as their authors count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import ModelError
from raregrade.labels import LabelSpace
from raregrade.losses import LOSSES, TrainingLabels
from raregrade.losses.bce import BCELoss
from raregrade.losses.coral import CoralLoss
from raregrade.losses.corn import CornLoss
from raregrade.losses.cross_entropy import CrossEntropyLoss
from raregrade.models.decisions import (
    Decision,
    decided_by,
    decision_of,
    decision_of_card,
    default_decision,
    with_decision,
)
from raregrade.models.outputs import probabilities

ORDINAL = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
MULTILABEL = LabelSpace("multilabel", ("a", "b"))

logits = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).normal(0, 2, (50, 3)))


@given(logits)
def test_coral_counts_thresholds_above_one_half_as_its_authors_do(z: np.ndarray) -> None:
    count = (1 / (1 + np.exp(-z)) > 0.5).sum(axis=1)
    np.testing.assert_array_equal(Decision("median").decide(probabilities("coral", z)), count)


@given(logits)
def test_corn_counts_products_above_one_half_as_its_authors_do(z: np.ndarray) -> None:
    count = (np.cumprod(1 / (1 + np.exp(-z)), axis=1) > 0.5).sum(axis=1)
    np.testing.assert_array_equal(Decision("median").decide(probabilities("corn", z)), count)


@given(st.integers(0, 2**31))
def test_the_median_is_the_lowest_grade_that_reaches_one_half(seed: int) -> None:
    probs = np.random.default_rng(seed).dirichlet(np.ones(5), 40)
    expected = [next(k for k in range(5) if p[: k + 1].sum() >= 0.5 - 1e-6) for p in probs]
    np.testing.assert_array_equal(Decision("median").decide(probs), expected)


def test_the_median_takes_the_lower_grade_at_exactly_one_half() -> None:
    assert Decision("median").decide(np.array([[0.25, 0.25, 0.5]])).tolist() == [1]
    assert Decision("median").decide(np.array([[0.1, 0.2, 0.2, 0.5]], dtype=np.float32)).tolist() == [2]


def test_argmax_takes_the_lower_class_on_a_tie() -> None:
    assert Decision("argmax").decide(np.array([[0.4, 0.4, 0.2]])).tolist() == [0]


def test_the_cheapest_class_need_not_be_the_likeliest() -> None:
    """Missing the severe case costs ten times a false alarm."""
    costs = ((0.0, 1.0), (10.0, 0.0))
    probs = np.array([[0.8, 0.2], [0.95, 0.05]])
    assert Decision("expected_cost", costs=costs).decide(probs).tolist() == [1, 0]
    equal = Decision("expected_cost", costs=((0.0, 1.0), (1.0, 0.0)))
    np.testing.assert_array_equal(equal.decide(probs), Decision("argmax").decide(probs))


def test_squared_costs_decide_near_the_mean() -> None:
    costs = tuple(tuple(float((i - j) ** 2) for j in range(4)) for i in range(4))
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    mean = probs @ np.arange(4)
    clear = np.abs(mean % 1 - 0.5) > 1e-6
    np.testing.assert_array_equal(Decision("expected_cost", costs=costs).decide(probs)[clear], np.round(mean)[clear])


def test_each_label_has_its_own_threshold_and_is_predicted_above_it() -> None:
    decision = Decision("threshold", thresholds=(0.5, 0.2))
    assert decision.decide(np.array([[0.5, 0.3], [0.6, 0.2]])).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("decision", "space"),
    [
        (Decision("argmax"), ORDINAL),
        (Decision("median"), ORDINAL),
        (Decision("threshold", thresholds=(0.1, 0.9)), MULTILABEL),
        (Decision("expected_cost", costs=((0.0, 2.0), (1.0, 0.0))), LabelSpace("multiclass", ("a", "b"))),
    ],
)
def test_a_decision_survives_its_card(decision: Decision, space: LabelSpace) -> None:
    assert decision_of_card(with_decision({"label_space": space.to_json()}, decision)) == decision


@pytest.mark.parametrize(
    ("decision", "space"),
    [
        (Decision("argmax"), MULTILABEL),
        (Decision("threshold", thresholds=(0.5,) * 4), ORDINAL),
        (Decision("median"), LabelSpace("multiclass", ("a", "b"))),
    ],
)
def test_a_card_whose_rule_does_not_fit_its_labels_is_refused(decision: Decision, space: LabelSpace) -> None:
    with pytest.raises(ModelError, match=f"decision {decision.rule} does not fit task {space.task}"):
        decision_of_card(with_decision({"label_space": space.to_json()}, decision))


def test_a_card_without_decision_and_with_an_unknown_output_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown output 'logits'; allowed: softmax, sigmoid, corn, coral"):
        decision_of_card({"output": "logits", "label_space": ORDINAL.to_json()})


def test_a_report_names_its_rule_and_that_of_the_loss_where_they_differ() -> None:
    both = {"decision": {"rule": "median"}, "own_decision": {"rule": "argmax"}}
    assert decided_by(both) == "median (the rule of the loss is argmax)"
    assert decided_by({**both, "decision": {"rule": "argmax"}}) == "argmax"


@pytest.mark.parametrize(("output", "rule"), [("softmax", "argmax"), ("corn", "median"), ("coral", "median")])
def test_a_card_without_a_decision_has_the_rule_of_its_output(output: str, rule: str) -> None:
    assert decision_of_card({"output": output, "label_space": ORDINAL.to_json()}).rule == rule


def test_losses_declare_the_rule_of_their_authors() -> None:
    assert CornLoss(4).decision == CoralLoss(4).decision == "median"
    assert CrossEntropyLoss(4).decision == "argmax"
    hierarchy = TrainingLabels(LabelSpace("multilabel", ("a", "b"), (("a", "b"),)))
    assert BCELoss(2).decision == LOSSES["hbce"]().build(hierarchy).decision == "threshold"


def test_the_rule_of_a_task_is_argmax_or_one_half() -> None:
    assert default_decision(ORDINAL) == Decision("argmax")
    assert default_decision(MULTILABEL) == decision_of("threshold", MULTILABEL)
    assert default_decision(MULTILABEL).thresholds == (0.5, 0.5)


def test_rules_without_their_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="unknown decision rule 'mode'; allowed: argmax, median"):
        Decision("mode")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="costs belong to rule expected_cost"):
        Decision("expected_cost")
    with pytest.raises(ModelError, match="thresholds belong to rule threshold"):
        Decision("argmax", thresholds=(0.5,))
    with pytest.raises(ModelError, match="not a decision: None"):
        Decision.from_json(None)
    with pytest.raises(ModelError, match="2 thresholds, the probabilities 3 labels"):
        Decision("threshold", thresholds=(0.5, 0.5)).decide(np.zeros((1, 3)))
    with pytest.raises(ModelError, match=r"costs of shape \[2, 2\], the probabilities 3 classes"):
        Decision("expected_cost", costs=((0.0, 1.0), (1.0, 0.0))).decide(np.zeros((1, 3)))
