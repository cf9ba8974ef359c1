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

# better: the test supports the choice. worse: it shows the opposite. contradicted: it points the other way without
# showing it. not_distinguishable: neither. untested: one seed, or no such metric on test. baseline: validation
# chose it, so there is nothing to claim. alone: nothing to compare with.
Verdict = Literal["better", "worse", "contradicted", "not_distinguishable", "untested", "baseline", "alone"]


@dataclass(frozen=True)
class Claim:
    """The outcome of the one test.

    Attributes:
        metric: of the test split, such as ``test_qwk``.
        loss: what validation chose.
        baseline: what it is compared with.
        verdict: see ``Verdict``.
        difference: loss - baseline on test; None where it was not computed.
        power: what the present patients and seeds could have shown; None likewise.
    """

    metric: str
    loss: str
    baseline: str
    verdict: Verdict
    difference: Difference | None
    power: Power | None

    def to_json(self) -> dict[str, Any]:
        return {
            "split": "test",
            "metric": self.metric,
            "loss": self.loss,
            "baseline": self.baseline,
            "verdict": self.verdict,
            "difference": None if self.difference is None else difference_to_json(self.difference),
            "power": None if self.power is None else asdict(self.power),
        }


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
