"""The gate: is a candidate good enough to be registered or promoted.

Pure functions on numbers. ``mlflow.models.validate_evaluation_results`` has floors and least changes as well, but
raises at the first failure without both numbers, knows no test and no difference between one model and a mean over
seeds, and costs the import of mlflow; here every rule answers with a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raregrade.config import GateRule

# Of the intervals by which `superior` and `non_inferior` are decided: 2.5 % that a model passes that is no better.
CONFIDENCE = 0.95
_ROUNDING = 1e-12  # 0.30 - 0.28 is a little less than 0.02


@dataclass(frozen=True)
class PairedDifference:
    """The candidate's metric minus the reference's, with its error.

    Attributes:
        mean: the difference; NaN where there are too few patients to test it.
        standard_error: 0 where no patient and no training changes the difference.
        df: degrees of freedom of the standard error; None where that is 0.
    """

    mean: float
    standard_error: float
    df: float | None


@dataclass(frozen=True)
class Reference:
    """What a candidate is held against: the baseline of its comparison, or the champion.

    Attributes:
        name: as sentences call it, such as ``the champion (version 3)``.
        metrics: metrics of the reference, ``val_*`` and ``test_*``.
        candidate: the candidate's metrics of the same kind: means over the same seeds against a baseline's
            means, one model's numbers against one champion's.
        is_candidate: the candidate is the reference itself, as when the baseline is what a comparison recommends.
        differences: of the metrics that were tested, both on the same images.
        untested: why there is no difference of a metric, as the rest of a sentence; with what to do about it.
    """

    name: str
    metrics: Mapping[str, float]
    candidate: Mapping[str, float]
    is_candidate: bool = False
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    untested: str = "the two were not tested on the same images"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """Inverse of ``dataclasses.asdict``; versions registered by an earlier raregrade have no differences."""
        differences = {name: PairedDifference(**found) for name, found in value.get("differences", {}).items()}
        return cls(**{**value, "differences": differences})


@dataclass(frozen=True)
class GateResult:
    """The verdict, one sentence for each condition.

    Attributes:
        refusals: why the candidate may not pass, alarms first; empty where it passes.
        remarks: conditions that hold, and what was not looked at.
    """

    refusals: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.refusals


def evaluate_gate(
    rules: Sequence[GateRule],
    candidate: Mapping[str, float],
    reference: Reference | None = None,
    *,
    alarms: Sequence[str] = (),
    refuse: bool = True,
) -> GateResult:
    """Apply every rule; all must hold, and there may be no alarm unless ``refuse`` is False.

    Args:
        rules: ``threshold`` is a floor (a ceiling where lower is better) for the candidate's own metric,
            ``min_absolute_change`` the least improvement over ``reference``; ``superior`` holds where the 95 % interval
            of the improvement lies above 0, ``non_inferior`` where it lies above minus the margin.
        candidate: metrics of the very model that would be registered.
        reference: None where there is nothing to be held against, which fulfils all but ``threshold``.
            A candidate that is the reference fulfils them too: nothing can be better than itself.
        alarms: sentences about the candidate.
        refuse: whether alarms refuse it, or are remarked on.

    A metric that is missing or not finite, on either side, is a refusal, and so is a test that was not made.
    """
    refusals = list(alarms) if refuse else []
    remarks = [] if refuse else [f"alarm, let pass by alarms.refuse: {alarm}" for alarm in alarms]
    for rule in rules:
        for passed, sentence in _conditions(rule, candidate, reference):
            (remarks if passed else refusals).append(sentence)
    if not rules:
        remarks.append("the gate has no rules")
    return GateResult(tuple(refusals), tuple(remarks))


def _conditions(rule: GateRule, candidate: Mapping[str, float], reference: Reference | None) -> list[tuple[bool, str]]:
    conditions = []
    if rule.threshold is not None:
        conditions.append(_floor(rule, rule.threshold, candidate))
    if rule.min_absolute_change is None and rule.superior is None and rule.non_inferior is None:
        return conditions
    if reference is None:
        return [*conditions, (True, f"{rule.metric}: no champion or baseline to compare with")]
    if reference.is_candidate:
        return [*conditions, (True, f"{rule.metric}: the candidate is {reference.name} itself")]
    if rule.min_absolute_change is not None:
        conditions.append(_change(rule, rule.min_absolute_change, reference))
    if rule.superior:
        conditions.append(_tested(rule, 0.0, reference))
    if rule.non_inferior is not None:
        conditions.append(_tested(rule, rule.non_inferior, reference))
    return conditions


def _floor(rule: GateRule, threshold: float, candidate: Mapping[str, float]) -> tuple[bool, str]:
    value = _finite(candidate, rule.metric)
    if value is None:
        return False, f"{rule.metric} of the candidate is not known, so it cannot be compared with {threshold:g}"
    if rule.greater_is_better:
        passed = value >= threshold - _ROUNDING
        relation = "reaches the floor of" if passed else "is below the floor of"
    else:
        passed = value <= threshold + _ROUNDING
        relation = "stays below the ceiling of" if passed else "is above the ceiling of"
    return passed, f"{rule.metric} {value:.4f} {relation} {threshold:g}"


def _change(rule: GateRule, least: float, reference: Reference) -> tuple[bool, str]:
    new, old = _finite(reference.candidate, rule.metric), _finite(reference.metrics, rule.metric)
    if new is None or old is None:
        whose = "the candidate" if new is None else reference.name
        return False, f"{rule.metric} of {whose} is not known, so the two cannot be compared"
    improvement = new - old if rule.greater_is_better else old - new
    passed = improvement >= least - _ROUNDING
    verdict = "at least" if passed else "less than"
    return passed, (
        f"{rule.metric} {new:.4f} against {old:.4f} of {reference.name}: "
        f"better by {improvement:+.4f}, {verdict} the {least:+g} asked for"
    )


def _tested(rule: GateRule, margin: float, reference: Reference) -> tuple[bool, str]:
    """Whether the improvement is shown to be above minus ``margin``."""
    found = reference.differences.get(rule.metric)
    wanted = "better than" if not margin else f"less than {margin:g} worse than"
    if found is None:
        return False, f"{rule.metric} is not shown to be {wanted} that of {reference.name}: {reference.untested}"
    gain = found.mean if rule.greater_is_better else -found.mean
    if not math.isfinite(gain):
        return False, f"{rule.metric} cannot be tested against {reference.name}: too few patients"
    low, high = _limits(gain, found)
    # A difference that nothing varies is no proof, but two models that decide alike are equally good.
    shown = low > -margin if found.standard_error > 0 else gain == 0 and margin > 0
    how = "is" if shown else "is not shown to be"
    return shown, (
        f"{rule.metric} {how} {wanted} that of {reference.name}: better by {gain:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def _limits(gain: float, found: PairedDifference) -> tuple[float, float]:
    if found.standard_error <= 0 or found.df is None:
        return gain, gain
    from scipy.special import stdtrit

    reach = float(stdtrit(max(found.df, 1.0), (1 + CONFIDENCE) / 2)) * found.standard_error
    return gain - reach, gain + reach


def _finite(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return value if value is not None and math.isfinite(value) else None
