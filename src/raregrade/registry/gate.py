"""The gate: are a candidate's validation metrics good enough to be registered or promoted.

Pure functions on numbers. ``mlflow.models.validate_evaluation_results`` has the same two conditions,
but raises at the first failure without both numbers, knows no difference between one model and a mean
over seeds, and costs the import of mlflow; here every rule answers with a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raregrade.config import GateRule

_ROUNDING = 1e-12  # 0.30 - 0.28 is a little less than 0.02


@dataclass(frozen=True)
class Reference:
    """What a candidate must improve on: the baseline of its comparison, or the champion.

    Attributes:
        name: as sentences call it, such as ``champion (version 3)``.
        metrics: ``val_*`` metrics of the reference.
        candidate: the candidate's metrics of the same kind: means over the same seeds against a baseline's
            means, one model's numbers against one champion's.
        is_candidate: the candidate is the reference itself, as when the baseline wins its comparison.
    """

    name: str
    metrics: Mapping[str, float]
    candidate: Mapping[str, float]
    is_candidate: bool = False


@dataclass(frozen=True)
class GateResult:
    """The verdict; one sentence for each condition, refusals first."""

    passed: bool
    reasons: tuple[str, ...] = field(default=())


def evaluate_gate(
    rules: Sequence[GateRule], candidate: Mapping[str, float], reference: Reference | None = None
) -> GateResult:
    """Apply every rule; all must hold.

    Args:
        rules: ``threshold`` is a floor (a ceiling where lower is better) for the candidate's own metric,
            ``min_absolute_change`` the least improvement over ``reference``.
        candidate: ``val_*`` metrics of the very model that would be registered.
        reference: None where there is nothing to improve on, which fulfils ``min_absolute_change``.
            A candidate that is the reference fulfils it too: nothing can improve on itself.

    A metric that is missing or not finite, on either side, is a refusal.
    """
    refusals: list[str] = []
    passes: list[str] = []
    for rule in rules:
        for passed, sentence in _conditions(rule, candidate, reference):
            (passes if passed else refusals).append(sentence)
    if not rules:
        passes.append("the gate has no rules")
    return GateResult(not refusals, (*refusals, *passes))


def _conditions(rule: GateRule, candidate: Mapping[str, float], reference: Reference | None) -> list[tuple[bool, str]]:
    conditions = []
    if rule.threshold is not None:
        conditions.append(_floor(rule, rule.threshold, candidate))
    if rule.min_absolute_change is not None:
        conditions.append(_change(rule, rule.min_absolute_change, reference))
    return conditions


def _floor(rule: GateRule, threshold: float, candidate: Mapping[str, float]) -> tuple[bool, str]:
    value = _finite(candidate, rule.metric)
    if value is None:
        return False, f"{rule.metric} of the candidate is not known, so it cannot be held against {threshold:g}"
    if rule.greater_is_better:
        passed = value >= threshold - _ROUNDING
        relation = "reaches the floor of" if passed else "is below the floor of"
    else:
        passed = value <= threshold + _ROUNDING
        relation = "keeps below the ceiling of" if passed else "is above the ceiling of"
    return passed, f"{rule.metric} {value:.4f} {relation} {threshold:g}"


def _change(rule: GateRule, least: float, reference: Reference | None) -> tuple[bool, str]:
    if reference is None:
        return True, f"{rule.metric}: no champion and no baseline to improve on"
    if reference.is_candidate:
        return True, f"{rule.metric}: the candidate is the {reference.name} itself"
    new, old = _finite(reference.candidate, rule.metric), _finite(reference.metrics, rule.metric)
    if new is None or old is None:
        whose = "the candidate" if new is None else f"the {reference.name}"
        return False, f"{rule.metric} of {whose} is not known, so the two cannot be compared"
    improvement = new - old if rule.greater_is_better else old - new
    passed = improvement >= least - _ROUNDING
    verdict = "at least" if passed else "less than"
    return passed, (
        f"{rule.metric} {new:.4f} against {old:.4f} of the {reference.name}: "
        f"better by {improvement:+.4f}, {verdict} the {least:+g} asked for"
    )


def _finite(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return value if value is not None and math.isfinite(value) else None
