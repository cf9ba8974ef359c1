"""CORAL: rank-consistent ordinal regression (Cao, Mirjalili, Raschka, arXiv 1901.07884)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import Loss, check_class_target, raise_precision, reduce
from raregrade.losses.definition import ORDINAL, HeadSpec, LossDefinition, Reduction, TrainingLabels


class Coral(LossDefinition):
    """CORAL: one score, K - 1 ordered thresholds, arXiv 1901.07884."""

    tasks = ORDINAL

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> CoralLoss:
        return CoralLoss(labels.num_classes, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-sum_k [y > k] log s(z_k) + [y <= k] log(1 - s(z_k)); arXiv 1901.07884."""
        above = target[:, None] > torch.arange(labels.num_classes - 1)
        p = logits.sigmoid()
        return -torch.where(above, p, 1 - p).log().sum(1).mean()


class CoralLoss(Loss):
    """Sum over the thresholds k of BCE(sigmoid(z_k), [y > k]), on K - 1 logits z_k = score + b_k.

    The head shares one weight vector between the thresholds, which keeps P(y > k) ordered wherever the biases are.
    """

    levels: Tensor

    decision = "median"  # how many P(y > k) exceed one half, as the authors count

    def __init__(self, num_classes: int, *, reduction: Reduction = "mean") -> None:
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
    """Row y, column k: 1 where y > k. float32 [K, K - 1]. Raises UserError for fewer than two classes."""
    if num_classes < 2:
        raise UserError(f"num_classes = {num_classes}: grades are two at least")
    return torch.ones(num_classes, num_classes - 1).tril(-1)
