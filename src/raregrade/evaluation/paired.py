"""All models of a comparison on one split: their metrics, and how these vary together over patients.

Shape legend: M models (loss and seed), G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.candidates import Candidate
from raregrade.evaluation.intervals import jackknife_df
from raregrade.evaluation.jackknife import jackknife_covariance, leave_one_out
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.mrmc import Difference, difference
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedModels:
    """Models that judged the same images.

    Attributes:
        owners: loss of each model, M of them.
        metrics: one mapping a model, name without split → value.
        left_out: one mapping a model, name → [G], the metric without each group.
        space: the label space.
        confidence: of intervals and tests.
    """

    owners: tuple[str, ...]
    metrics: tuple[Mapping[str, float], ...]
    left_out: tuple[Mapping[str, Floats], ...]
    space: LabelSpace
    confidence: float

    @classmethod
    def of(
        cls,
        candidates: Mapping[str, Sequence[Candidate]],
        split: str,
        space: LabelSpace,
        confidence: float,
        decision: Decision | None = None,
    ) -> PairedModels | None:
        """The models that predicted ``split``, decided as their reports say or by ``decision``; None without any."""
        members = [c for group in candidates.values() for c in group if split in c.predictions.splits]
        if not members:
            return None
        metrics, left_out = [], []
        for member in members:
            own = member.decision if decision is None else decision
            targets, probs = member.predictions.targets(split), member.predictions.probs(split)
            metrics.append(compute_metrics(targets, probs, space, own))
            left_out.append(leave_one_out(targets, probs, member.predictions.groups(split), space, own))
        return cls(tuple(m.loss for m in members), tuple(metrics), tuple(left_out), space, confidence)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that any model defines, in their order."""
        return tuple(dict.fromkeys(name for values in self.metrics for name in values))

    def rows(self, loss: str) -> list[int]:
        """Which models are of ``loss``."""
        return [i for i, owner in enumerate(self.owners) if owner == loss]

    def defined(self, name: str, losses: Sequence[str]) -> bool:
        """Whether every model of ``losses`` has a value, and each loss a model."""
        return all(self.rows(loss) and all(name in self.metrics[i] for i in self.rows(loss)) for loss in losses)

    def values(self, name: str, loss: str) -> list[float]:
        """The metric of each seed of ``loss``."""
        return [self.metrics[i][name] for i in self.rows(loss)]

    def covariance(self, name: str, losses: Sequence[str]) -> Floats:
        """Over patients, of all models of ``losses`` in their order."""
        return jackknife_covariance(np.stack([self.left_out[i][name] for loss in losses for i in self.rows(loss)]))

    def case_df(self, name: str, loss: str, baseline: str | None = None) -> float:
        """Degrees of freedom of the variance over patients, of the mean of a loss or of a difference of two."""
        values = np.mean([self.left_out[i][name] for i in self.rows(loss)], axis=0)
        if baseline is not None:
            values = values - np.mean([self.left_out[i][name] for i in self.rows(baseline)], axis=0)
        values = values[~np.isnan(values)]
        return jackknife_df(values) if len(values) > 1 else 1.0

    def difference(self, name: str, loss: str, baseline: str) -> Difference:
        """The test of ``loss`` against ``baseline``."""
        return difference(
            self.values(name, loss),
            self.values(name, baseline),
            self.covariance(name, [loss, baseline]),
            case_df=self.case_df(name, loss, baseline),
            confidence=self.confidence,
        )
