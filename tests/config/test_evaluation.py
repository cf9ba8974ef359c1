"""Section ``evaluate``: which rules fit which labels is said before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from raregrade.config import Params, params_from_dict
from raregrade.errors import ConfigError

GRADES = {"task": "ordinal", "classes": ["none", "mild", "severe"]}
NAMES = {"task": "multiclass", "classes": ["nevus", "melanoma", "other"]}
FINDINGS = {"task": "multilabel", "classes": ["opacity", "nodule"]}
COSTS = [[0, 1, 4], [1, 0, 1], [9, 4, 0]]


def params(data: dict[str, Any], **evaluate: Any) -> Params:
    loss = "bce" if data["task"] == "multilabel" else "ce"
    return params_from_dict(
        {
            "data": {"source": "phantom", "path": "x", **data},
            "losses": {loss: {}},
            "compare": {"losses": [loss], "seeds": [1], "baseline": loss},
            "evaluate": evaluate,
        }
    )


@pytest.mark.parametrize(
    ("data", "evaluate"),
    [
        (GRADES, {"decision": "median"}),
        (GRADES, {"decision": "expected_cost", "costs": COSTS}),
        (GRADES, {"decision": "best", "costs": COSTS}),
        (NAMES, {"decision": "best"}),
        (FINDINGS, {"decision": "f1"}),
        (FINDINGS, {"decision": "sensitivity", "sensitivity": 0.95}),
        (FINDINGS, {"decision": "sensitivity", "sensitivity": {"nodule": 0.95}}),
    ],
)
def test_rules_that_fit_the_labels_are_taken(data: dict[str, Any], evaluate: dict[str, Any]) -> None:
    assert params(data, **evaluate).evaluate.decision == evaluate["decision"]


@pytest.mark.parametrize(
    ("data", "evaluate", "message"),
    [
        (
            NAMES,
            {"decision": "median"},
            "evaluate.decision: median is no rule for task multiclass; allowed: own, argmax",
        ),
        (FINDINGS, {"decision": "best"}, "best is no rule for task multilabel; allowed: own, f1, youden, sensitivity"),
        (GRADES, {"decision": "mode"}, "evaluate.decision = 'mode'"),
        (GRADES, {"decision": "expected_cost"}, "decision expected_cost needs a matrix of costs"),
        (GRADES, {"costs": COSTS[:2]}, "3 classes need 3 rows of 3 costs, got 2 rows of 3, 3"),
        (GRADES, {"costs": [[0, 1, 4], [1, 1, 1], [9, 4, 0]]}, "the right class must cost less than every wrong one"),
        (GRADES, {"costs": [[0, -1, 4], [1, 0, 1], [9, 4, 0]]}, "evaluate.costs.0.1 = -1"),
        (FINDINGS, {"costs": [[0, 1], [1, 0]]}, "evaluate.costs: task multilabel decides each label by itself"),
        (FINDINGS, {"decision": "sensitivity"}, "sensitivity: give it with decision sensitivity"),
        (FINDINGS, {"decision": "f1", "sensitivity": 0.9}, "sensitivity: give it with decision sensitivity"),
        (FINDINGS, {"decision": "sensitivity", "sensitivity": {"mass": 0.9}}, "mass given; labels: opacity, nodule"),
        (FINDINGS, {"decision": "sensitivity", "sensitivity": {}}, "no label given; labels: opacity, nodule"),
    ],
)
def test_rules_that_do_not_are_refused_with_the_key(
    data: dict[str, Any], evaluate: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        params(data, **evaluate)
    assert message in str(refusal.value)
