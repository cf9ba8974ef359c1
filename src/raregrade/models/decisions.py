"""How class probabilities become a decision, by name, in numpy. Prediction needs this and no loss, nor torch.

A decision is stored in a model's card and in a report, so that evaluation, the gate, ``predict`` and a served model
decide alike. Which rule a loss has by nature is the loss's to say; how a rule is fitted is ``evaluation``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from raregrade.errors import ModelError
from raregrade.labels import LabelSpace

Rule = Literal["argmax", "median", "expected_cost", "threshold"]
RULES: tuple[Rule, ...] = get_args(Rule)
THRESHOLD = 0.5
# Probabilities are stored in single precision, and other programs round theirs.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Decision:
    """A rule with its numbers.

    Attributes:
        rule: ``argmax``, the most probable class (the lower one on a tie); ``median``, the lowest grade whose
            cumulative probability reaches one half, which is the number of thresholds k with P(y > k) > 0.5, as CORN
            and CORAL count them; ``expected_cost``, the class with the least expected cost; ``threshold``, every label
            whose probability is above its threshold (``multilabel`` alone).
        costs: for ``expected_cost``, entry (i, j) is the cost of predicting class j for an image of class i.
        thresholds: for ``threshold``, one a label.
    """

    rule: Rule
    costs: tuple[tuple[float, ...], ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ModelError(f"unknown decision rule {self.rule!r}; allowed: {', '.join(RULES)}")
        for name, owner in (("costs", "expected_cost"), ("thresholds", "threshold")):
            if (getattr(self, name) is not None) != (self.rule == owner):
                raise ModelError(f"decision {self.rule}: {name} belong to rule {owner}, and it needs them")

    def decide(self, probs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Decisions on ``probs`` [N, K]: int64 [N] class indices, or bool [N, K] for ``threshold``.

        Raises:
            ModelError: as many costs or thresholds as there are classes are needed.
        """
        k = probs.shape[1]
        if self.rule == "threshold":
            assert self.thresholds is not None
            if len(self.thresholds) != k:
                raise ModelError(f"the decision has {len(self.thresholds)} thresholds, the probabilities {k} labels")
            above: npt.NDArray[np.bool_] = probs > np.asarray(self.thresholds)
            return above
        if self.rule == "median":
            cumulative = np.cumsum(probs, axis=1, dtype=np.float64)[:, :-1]
            passed: npt.NDArray[np.int64] = (cumulative < 0.5 - _ROUNDING).sum(axis=1).astype(np.int64)
            return passed
        if self.rule == "expected_cost":
            costs = np.asarray(self.costs, dtype=np.float64)
            if costs.shape != (k, k):
                raise ModelError(f"the decision has costs of shape {list(costs.shape)}, the probabilities {k} classes")
            cheapest: npt.NDArray[np.int64] = np.argmin(probs.astype(np.float64) @ costs, axis=1).astype(np.int64)
            return cheapest
        likeliest: npt.NDArray[np.int64] = np.argmax(probs, axis=1).astype(np.int64)
        return likeliest

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"rule": self.rule}
        if self.costs is not None:
            value["costs"] = [list(row) for row in self.costs]
        if self.thresholds is not None:
            value["thresholds"] = list(self.thresholds)
        return value

    @classmethod
    def from_json(cls, value: Any) -> Decision:
        """Inverse of ``to_json``. Raises ModelError where it is not one."""
        try:
            costs, thresholds = value.get("costs"), value.get("thresholds")
            return cls(
                rule=value["rule"],
                costs=None if costs is None else tuple(tuple(float(c) for c in row) for row in costs),
                thresholds=None if thresholds is None else tuple(float(t) for t in thresholds),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise ModelError(f"not a decision: {value!r}; expected for instance {{'rule': 'argmax'}}") from err

    def __str__(self) -> str:
        """As pages and the terminal name it."""
        if self.thresholds is not None:
            each = ", ".join(f"{t:.3g}" for t in self.thresholds)
            return f"threshold {self.thresholds[0]:g}" if len(set(self.thresholds)) == 1 else f"thresholds {each}"
        return {"expected_cost": "least expected cost"}.get(self.rule, self.rule)


# The rule that belongs to each way of making probabilities (``raregrade.models.outputs``).
_RULE_OF_OUTPUT: dict[str, Rule] = {"softmax": "argmax", "sigmoid": "threshold", "corn": "median", "coral": "median"}


def default_decision(label_space: LabelSpace) -> Decision:
    """``argmax``, or for ``multilabel`` a threshold of one half for each label."""
    return decision_of("threshold" if label_space.task == "multilabel" else "argmax", label_space)


def decision_of(rule: Rule, label_space: LabelSpace) -> Decision:
    """A loss's own rule as a decision: ``argmax``, ``median``, or ``threshold`` at one half for each label."""
    return Decision(rule, thresholds=(THRESHOLD,) * label_space.num_classes if rule == "threshold" else None)


def decision_of_card(card: dict[str, Any]) -> Decision:
    """How the model of ``card`` decides; a card that does not say so has the rule of its output.

    Raises:
        ModelError: the card's decision is not one, or not one for its labels.
    """
    space = LabelSpace.from_json(card["label_space"])
    if "decision" not in card:
        if card["output"] not in _RULE_OF_OUTPUT:
            raise ModelError(f"unknown output {card['output']!r}; allowed: {', '.join(_RULE_OF_OUTPUT)}")
        return decision_of(_RULE_OF_OUTPUT[card["output"]], space)
    decision = Decision.from_json(card["decision"])
    if (decision.rule == "threshold") != (space.task == "multilabel") or (
        decision.rule == "median" and space.task != "ordinal"
    ):
        raise ModelError(f"decision {decision.rule} does not fit task {space.task}; train or register the model again")
    return decision


def decided_by(report: dict[str, Any]) -> str:
    """The rule of a report (report.json), and that of the loss where it is another."""
    used, own = (Decision.from_json(report[name]) for name in ("decision", "own_decision"))
    return str(used) if used == own else f"{used} (the rule of the loss is {own})"


def with_decision(card: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """``card`` of the same model, decided by ``decision``."""
    return {**card, "decision": decision.to_json()}
