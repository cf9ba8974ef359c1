"""Focal loss for single-label classes (Lin et al., arXiv 1708.02002), focusing each sample by itself."""

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
    check_range,
    raise_precision,
    reduce,
)


class FocalLoss(Loss):
    """w_y (1 - p_y)^gamma (-log p_y), p = softmax(z) without weights; ``mean`` divides by B.

    Args:
        gamma: 0 is cross-entropy; the larger, the less the samples count that are already right.
        class_weights: [C], none negative, or None.
        num_classes: C; None takes any.
    """

    def __init__(
        self,
        gamma: float = 1.5,
        class_weights: Sequence[float] | Tensor | None = None,
        *,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_range("gamma", gamma, 0.0, float("inf"), open_high=True)
        weights = check_class_weights(class_weights, num_classes)
        super().__init__(num_classes if weights is None else len(weights), reduction=reduction)
        self.gamma = gamma
        self.add_constant("class_weights", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        loss = focal_terms(raise_precision(logits), target, self.gamma)
        weights = self.optional_constant("class_weights", loss.dtype)
        if weights is not None:
            loss = loss * weights.index_select(0, target)
        return reduce(loss, self.reduction)


def focal_terms(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """(1 - p_y)^gamma (-log p_y), [B]."""
    cross_entropy = functional.cross_entropy(logits, target, reduction="none")
    # 1 - p_y without cancellation; the clamp keeps the power's derivative finite at p_y = 1 when gamma < 1.
    miss = -torch.expm1(-cross_entropy)
    return miss.clamp_min(torch.finfo(miss.dtype).tiny).pow(gamma) * cross_entropy
