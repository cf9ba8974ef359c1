"""Balanced softmax (Ren et al., arXiv 2007.10740), which is logit adjustment (arXiv 2007.07314) with tau = 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import Loss, Reduction, check_class_target, check_counts, check_range, raise_precision


class BalancedSoftmaxLoss(Loss):
    """CE(z + tau log(n / N), y); probabilities are softmax(z), without the adjustment: that is what rebalances.

    Args:
        class_counts: n_j of the training images, all positive.
        tau: 0 is cross-entropy, 1 balanced softmax.
    """

    def __init__(
        self, class_counts: Sequence[int] | Tensor, tau: float = 1.0, *, reduction: Reduction = "mean"
    ) -> None:
        check_range("tau", tau, 0.0, float("inf"), open_high=True)
        counts = check_counts(class_counts)
        super().__init__(len(counts), reduction=reduction)
        self.add_constant("adjustment", tau * torch.log(counts / counts.sum()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        return functional.cross_entropy(
            logits + self.constant("adjustment", logits.dtype), target, reduction=self.reduction
        )
