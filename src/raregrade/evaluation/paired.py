"""All models of a comparison on one split: their metrics, and the tests between losses.

``PairedModels`` judged the same images: how their metrics vary together over patients is known, and a difference is
tested with training and patients both random. ``FoldedModels`` are those of cross-validation on the folds that they did
not train on: the metric of each model is its own, since scores of different models have no common scale, and a
difference is tested over folds.

Shape legend: M models, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.candidates import Candidate
from raregrade.evaluation.jackknife import jackknife_covariance, leave_one_out
from raregrade.evaluation.limits import jackknife_df
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.mrmc import (
    Difference,
    Estimate,
    Power,
    TTest,
    corrected_resampled_t,
    difference,
    mean_interval,
    power,
)
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

Floats = npt.NDArray[np.float64]


class SplitModels(Protocol):
    """What a comparison asks of its models on one split; names of metrics are without the split."""

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that any model defines, in their order."""
        ...

    def defined(self, name: str, losses: Sequence[str]) -> bool:
        """Whether each of ``losses`` has models, and every one of them a value."""
        ...

    def values(self, name: str, loss: str) -> list[float]:
        """The metric of each model of ``loss``."""
        ...

    def estimate(self, name: str, loss: str) -> Estimate:
        """The mean over the models of ``loss``, with its interval."""
        ...

    def difference(self, name: str, loss: str, baseline: str) -> Difference:
        """The test of ``loss`` against ``baseline``."""
        ...


def models_of(
    candidates: Mapping[str, Sequence[Candidate]],
    split: str,
    space: LabelSpace,
    confidence: float,
    decision: Decision | None = None,
) -> PairedModels | FoldedModels | None:
    """The models that predicted ``split``, decided as their reports say or by ``decision``; None without any."""
    members = [c for group in candidates.values() for c in group if split in c.predictions.splits]
    if not members:
        return None
    if split == "val" and members[0].fold is not None:
        return FoldedModels.of(members, space, confidence, decision)
    return PairedModels.of(members, split, space, confidence, decision=decision)


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
        members: Sequence[Candidate],
        split: str,
        space: LabelSpace,
        confidence: float,
        *,
        decision: Decision | None = None,
    ) -> PairedModels:
        """``members`` on ``split``, decided as their reports say or by ``decision``."""
        metrics, left_out = [], []
        for member in members:
            own = member.decision if decision is None else decision
            targets, probs = member.predictions.targets(split), member.predictions.probs(split)
            metrics.append(compute_metrics(targets, probs, space, own))
            left_out.append(leave_one_out(targets, probs, member.predictions.groups(split), space, own))
        return cls(tuple(m.loss for m in members), tuple(metrics), tuple(left_out), space, confidence)

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.metrics)

    def rows(self, loss: str) -> list[int]:
        """Which models are of ``loss``."""
        return [i for i, owner in enumerate(self.owners) if owner == loss]

    def defined(self, name: str, losses: Sequence[str]) -> bool:
        return all(self.rows(loss) and all(name in self.metrics[i] for i in self.rows(loss)) for loss in losses)

    def values(self, name: str, loss: str) -> list[float]:
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

    def estimate(self, name: str, loss: str) -> Estimate:
        return mean_interval(
            self.values(name, loss),
            self.covariance(name, [loss]),
            case_df=self.case_df(name, loss),
            confidence=self.confidence,
        )

    def difference(self, name: str, loss: str, baseline: str) -> Difference:
        return difference(
            self.values(name, loss),
            self.values(name, baseline),
            self.covariance(name, [loss, baseline]),
            case_df=self.case_df(name, loss, baseline),
            confidence=self.confidence,
        )

    def power(self, name: str, loss: str, baseline: str) -> Power:
        """What the test of ``loss`` against ``baseline`` could have shown."""
        return power(
            self.difference(name, loss, baseline),
            (len(self.rows(loss)), len(self.rows(baseline))),
            case_df=self.case_df(name, loss, baseline),
            confidence=self.confidence,
        )


@dataclass(frozen=True)
class FoldedModels:
    """Models of cross-validation, each judged on the fold that it did not train on.

    Attributes:
        owners: loss of each model, M of them.
        folds: fold of each model.
        metrics: one mapping a model, name without split → value on its fold.
        confidence: of intervals and tests.
    """

    owners: tuple[str, ...]
    folds: tuple[int, ...]
    metrics: tuple[Mapping[str, float], ...]
    confidence: float

    @classmethod
    def of(
        cls, members: Sequence[Candidate], space: LabelSpace, confidence: float, decision: Decision | None = None
    ) -> FoldedModels:
        """``members``, decided as their reports say or by ``decision``."""
        metrics = [
            compute_metrics(c.predictions.targets("val"), c.predictions.probs("val"), space, decision or c.decision)
            for c in members
        ]
        folds = tuple(-1 if c.fold is None else c.fold for c in members)
        return cls(tuple(c.loss for c in members), folds, tuple(metrics), confidence)

    @property
    def names(self) -> tuple[str, ...]:
        return _names(self.metrics)

    def defined(self, name: str, losses: Sequence[str]) -> bool:
        found = [[name in m for m, owner in zip(self.metrics, self.owners, strict=True) if owner == x] for x in losses]
        return all(values and all(values) for values in found)

    def values(self, name: str, loss: str) -> list[float]:
        return [m[name] for m, owner in zip(self.metrics, self.owners, strict=True) if owner == loss]

    def by_fold(self, name: str, loss: str) -> Floats:
        """[folds], the mean over the seeds of each fold, in order of folds."""
        return np.array(
            [
                np.mean(
                    [
                        m[name]
                        for m, owner, of in zip(self.metrics, self.owners, self.folds, strict=True)
                        if (owner, of) == (loss, fold)
                    ]
                )
                for fold in sorted(set(self.folds))
            ]
        )

    def estimate(self, name: str, loss: str) -> Estimate:
        """The mean over folds; the interval is that of Nadeau and Bengio's variance (``corrected_resampled_t``)."""
        values = self.by_fold(name, loss)
        found = corrected_resampled_t(values, 1 / len(values))
        low, high = _limits(found, self.confidence)
        known = found.standard_error > 0
        return Estimate(
            found.mean, found.standard_error if known else 0.0, found.df if known else 1.0, low, high, not known
        )

    def difference(self, name: str, loss: str, baseline: str) -> Difference:
        """Paired by fold, seeds averaged within the fold."""
        values = self.by_fold(name, loss) - self.by_fold(name, baseline)
        found = corrected_resampled_t(values, 1 / len(values))
        low, high = _limits(found, self.confidence)
        tested = bool(np.isfinite(found.p))
        return Difference(
            mean=found.mean,
            standard_error=found.standard_error if tested else None,
            df=found.df if tested else None,
            low=low,
            high=high,
            p=found.p if tested else None,
            patients_only=False,
            training_variance=0.0,
            case_variance=0.0,
            training_parts=(0.0, 0.0),
        )


def _limits(found: TTest, confidence: float) -> tuple[float | None, float | None]:
    """The t interval of a mean over folds; none where it cannot be told from one fold, or where nothing varies."""
    if not found.standard_error > 0:
        return None, None
    from scipy.stats import t as student  # noqa: PLC0415 - takes a second

    reach = float(student.ppf((1 + confidence) / 2, found.df)) * found.standard_error
    return found.mean - reach, found.mean + reach


def _names(metrics: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for values in metrics for name in values))
