"""What a comparison claims: is the loss that validation chose better than the baseline on the test split?

One loss, named by validation before the test split is looked at; one paired test, of the selection metric, with
training and patients both random. Everything else in a comparison is description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raregrade.evaluation.mrmc import Difference, Power
from raregrade.evaluation.naming import lower_is_better
from raregrade.evaluation.paired import PairedModels

# better: the test supports the choice. worse: it shows the opposite. contradicted: it points the other way without
# showing it. not_distinguishable: neither. untested: one seed, an unfair comparison, or no such metric on test.
# baseline: validation chose it, so there is nothing to claim. alone: nothing to compare with.
Verdict = Literal["better", "worse", "contradicted", "not_distinguishable", "untested", "baseline", "alone"]
# Numbers of seeds per loss whose least claimable difference is told to those who have one.
_SEEDS_TOLD = (2, 3, 5)


@dataclass(frozen=True)
class Claim:
    """The outcome of the one test.

    Attributes:
        metric: of the test split, such as ``test_qwk``.
        loss: what validation chose.
        baseline: what it is compared with.
        tested: the loss that ``difference`` is about: ``loss``, or where that is the baseline the next one on
            validation; None where there is none.
        verdict: see ``Verdict``.
        objection: why the difference would prove nothing, such as trials of tuning that one side alone had; else empty.
        difference: ``tested`` - baseline on test; None where it was not computed.
        power: what the present patients and seeds could have shown; None likewise.
        least: seeds per loss → the least difference that they could claim, in standard errors, where training adds
            nearly all of the variance.
    """

    metric: str
    loss: str
    baseline: str
    tested: str | None
    verdict: Verdict
    objection: str
    difference: Difference | None
    power: Power | None
    least: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "split": "test",
            "metric": self.metric,
            "loss": self.loss,
            "baseline": self.baseline,
            "tested": self.tested,
            "verdict": self.verdict,
            "objection": self.objection,
            "difference": None if self.difference is None else difference_to_json(self.difference),
            "power": None if self.power is None else asdict(self.power),
            "least": {str(seeds): value for seeds, value in self.least.items()},
        }


def claim_of(
    test: PairedModels, loss: str, baseline: str, following: str | None, *, metric: str, objection: str = ""
) -> Claim:
    """Test ``loss``, chosen on validation, against ``baseline``.

    Args:
        test: the models on the test split.
        loss: what validation chose; baseline: what it is compared with.
        following: the best of the others on validation, where ``loss`` is the baseline; None where there is no other.
        metric: without split.
        objection: why the difference would prove nothing; empty where it may.
    """
    name = f"test_{metric}"
    tested = following if loss == baseline else loss
    difference = reach = None
    if tested is not None and test.defined(metric, [tested, baseline]):
        difference = test.difference(metric, tested, baseline)
        reach = test.power(metric, tested, baseline)
    losses = 1 if tested is None else 2
    verdict = verdict_of(loss, baseline, difference, metric=name, confidence=test.confidence, losses=losses)
    if verdict == "better" and objection:
        verdict = "untested"
    return Claim(name, loss, baseline, tested, verdict, objection, difference, reach, _least(test.confidence))


def verdict_of(
    loss: str, baseline: str, difference: Difference | None, *, metric: str, confidence: float, losses: int
) -> Verdict:
    """The verdict on ``loss``, chosen on validation, from its difference to the baseline on test.

    Args:
        loss: what validation chose; baseline: what it is compared with.
        difference: on the test split, loss - baseline; None where a side has no value.
        metric: its name; lower may be better.
        confidence: 1 - the two-sided level of the test.
        losses: how many losses were candidates.
    """
    if losses == 1:
        return "alone"
    if loss == baseline:
        return "baseline"
    if difference is None or difference.p is None:
        return "untested"
    gain = -difference.mean if lower_is_better(metric) else difference.mean
    if difference.p <= 1 - confidence:
        return "better" if gain > 0 else "worse"
    return "contradicted" if gain < 0 else "not_distinguishable"


def difference_to_json(found: Difference) -> dict[str, Any]:
    """The keys of a difference in comparison.json."""
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "se": found.standard_error,
        "df": found.df,
        "p": found.p,
        "patients_only": found.patients_only,
    }


def recommended(claim: Claim, alarms: Mapping[str, list[Any]], *, refuse: bool) -> str:
    """The loss to register: what was chosen where its lead stood the test and no alarm speaks against it."""
    stands = claim.verdict in ("better", "alone", "baseline")
    return claim.loss if stands and not (refuse and alarms.get(claim.loss)) else claim.baseline


def _least(confidence: float) -> dict[int, float]:
    """t quantiles at the 2 (S - 1) degrees of freedom of two variances over S seeds."""
    from scipy.special import stdtrit  # noqa: PLC0415 - takes a second

    return {seeds: float(stdtrit(2 * (seeds - 1), (1 + confidence) / 2)) for seeds in _SEEDS_TOLD}
