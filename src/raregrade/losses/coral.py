"""CORAL: rank-consistent ordinal regression (Cao, Mirjalili, Raschka, arXiv 1901.07884)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import HeadSpec, Loss, Reduction, check_class_target, check_range, raise_precision, reduce


class CoralLoss(Loss):
    """Sum over the thresholds k of BCE(sigmoid(z_k), [y > k]), on K - 1 logits z_k = score + b_k.

    The head shares one weight vector between the thresholds, which keeps P(y > k) ordered wherever the biases are.
    """

    levels: Tensor

    decision = "median"  # how many P(y > k) exceed one half, as the authors count

    def __init__(self, num_classes: int, *, reduction: Reduction = "mean") -> None:
        check_range("num_classes", num_classes, 2, float("inf"))
        super().__init__(num_classes - 1, output="coral", head=HeadSpec("coral"), reduction=reduction)
        self.num_classes = num_classes
        self.register_buffer("levels", exceeded_thresholds(num_classes), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K - 1], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs, self.num_classes)
        logits = raise_precision(logits)
        above = self.levels.index_select(0, target).to(logits.dtype)
        return reduce(
            functional.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(1), self.reduction
        )


def exceeded_thresholds(num_classes: int) -> Tensor:
    """Row y, column k: 1 where y > k. float32 [K, K - 1]."""
    return torch.ones(num_classes, num_classes - 1).tril(-1)
