"""Cross-entropy, plain and with class weights, and the weights that are computed from class counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import Loss, check_class_target, check_class_weights, check_counts, raise_precision
from raregrade.losses.definition import SINGLE_LABEL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import Choice, Scalar, Space


class CrossEntropy(LossDefinition):
    """Cross-entropy, all classes alike."""

    tasks = SINGLE_LABEL

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> CrossEntropyLoss:
        return CrossEntropyLoss(labels.num_classes, self.weights(labels), reduction=reduction)

    def weights(self, labels: TrainingLabels) -> Tensor | None:
        """w_j, float64 [C], or None where all classes weigh alike."""
        del labels
        return None

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-sum_b w_y log p_y / sum_b w_y, p = softmax(z)."""
        weights = self.weights(labels)
        w = torch.ones(len(target)) if weights is None else weights[target]
        log_p = logits.log_softmax(1).gather(1, target[:, None]).squeeze(1)
        return -(w * log_p).sum() / w.sum()


class WeightedCrossEntropy(CrossEntropy):
    """Cross-entropy weighted by N / (C n_j) (``inverse``) or (1 - n_j / N) / (C - 1) (``complement``)."""

    weighting: Literal["inverse", "complement"] = "inverse"
    SEARCH: ClassVar[dict[str, Space]] = {"weighting": Choice(choices=("inverse", "complement"))}

    @property
    def corrects_prior(self) -> bool:
        return True

    def weights(self, labels: TrainingLabels) -> Tensor:
        by = inverse_frequency_weights if self.weighting == "inverse" else complement_frequency_weights
        return by(labels.counts())


class EffectiveNumber(CrossEntropy):
    """Cross-entropy weighted by effective numbers, arXiv 1901.05555."""

    beta: float = Field(0.9999, ge=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {"beta": Choice(choices=(0.9, 0.99, 0.999, 0.9999))}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"beta": 0.9999}, {"beta": 0.999})

    @property
    def corrects_prior(self) -> bool:
        return self.beta > 0

    def weights(self, labels: TrainingLabels) -> Tensor:
        return effective_number_weights(labels.counts(), self.beta)


class CrossEntropyLoss(Loss):
    """-w_y log softmax(z)_y, ``reduction="mean"`` divided by the sum of the samples' weights, as in torch.

    Args:
        num_classes: C; None takes any.
        class_weights: [C], none negative; None weighs all classes alike.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        weights = check_class_weights(class_weights, num_classes)
        super().__init__(num_classes if weights is None else len(weights), reduction=reduction)
        self.add_constant("class_weights", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.optional_constant("class_weights", logits.dtype)
        return functional.cross_entropy(logits, target, weights, reduction=self.reduction)


def inverse_frequency_weights(class_counts: Sequence[int] | Tensor) -> Tensor:
    """N / (C n_j): a class weighs as much as the others together would if all were equally frequent. float64 [C]."""
    counts = check_counts(class_counts)
    return counts.sum() / (len(counts) * counts)


def effective_number_weights(class_counts: Sequence[int] | Tensor, beta: float = 0.9999) -> Tensor:
    """(1 - beta) / (1 - beta^n_j), scaled to sum to C (class-balanced loss, arXiv 1901.05555). float64 [C].

    ``beta``, at least 0 and below 1: 0 weighs all classes alike; towards 1 the weights approach inverse frequency.
    """
    counts = check_counts(class_counts)
    weights = (1.0 - beta) / (-torch.expm1(counts * torch.log(torch.tensor(beta, dtype=torch.float64))))
    return weights / weights.sum() * len(counts)


def complement_frequency_weights(class_counts: Sequence[int] | Tensor) -> Tensor:
    """(1 - n_j / N) / (C - 1), the weighted cross-entropy that LMF is compared with (arXiv 2212.12741). float64 [C]."""
    counts = check_counts(class_counts)
    return (1.0 - counts / counts.sum()) / (len(counts) - 1)
