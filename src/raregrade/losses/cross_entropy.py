"""Cross-entropy, plain and with class weights, and the weights that are computed from class counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import (
    Loss,
    Reduction,
    check_class_target,
    check_class_weights,
    check_counts,
    check_range,
    raise_precision,
)


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

    ``beta`` = 0 weighs all classes alike; towards 1 the weights approach inverse frequency.
    """
    check_range("beta", beta, 0.0, 1.0, open_high=True)
    counts = check_counts(class_counts)
    weights = (1.0 - beta) / (-torch.expm1(counts * torch.log(torch.tensor(beta, dtype=torch.float64))))
    return weights / weights.sum() * len(counts)


def complement_frequency_weights(class_counts: Sequence[int] | Tensor) -> Tensor:
    """(1 - n_j / N) / (C - 1), the weighted cross-entropy that LMF is compared with (arXiv 2212.12741). float64 [C]."""
    counts = check_counts(class_counts)
    return (1.0 - counts / counts.sum()) / (len(counts) - 1)
