"""CORN: ordinal regression by conditional probabilities (Shi, Cao, Raschka, arXiv 2111.08851)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import Loss, check_class_target, raise_precision, reduce
from raregrade.losses.coral import exceeded_thresholds
from raregrade.losses.definition import ORDINAL, LossDefinition, Reduction, TrainingLabels


class Corn(LossDefinition):
    """CORN: K - 1 conditional probabilities, arXiv 2111.08851."""

    tasks = ORDINAL

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> CornLoss:
        return CornLoss(labels.num_classes, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-[y > k] log s(z_k) - [y <= k] log(1 - s(z_k)), the mean over all b and k <= y_b; arXiv 2111.08851."""
        k = torch.arange(labels.num_classes - 1)
        p = logits.sigmoid()
        terms = -torch.where(target[:, None] > k, p, 1 - p).log()
        return terms[target[:, None] >= k].mean()


class CornLoss(Loss):
    """Binary cross-entropy of P(y > k | y > k - 1) = sigmoid(z_k), each threshold on the samples with y >= k.

    ``mean`` divides the sum of all terms by their number in the batch, sum_b min(y_b + 1, K - 1), as the authors do;
    ``none`` gives each sample's sum of terms, [B].
    """

    levels: Tensor
    asked: Tensor

    decision = "median"  # how many P(y > k) exceed one half, as the authors count

    def __init__(self, num_classes: int, *, reduction: Reduction = "mean") -> None:
        super().__init__(num_classes - 1, output="corn", reduction=reduction)
        self.num_classes = num_classes
        levels = exceeded_thresholds(num_classes)
        self.register_buffer("levels", levels, persistent=False)
        # Threshold k is asked of the samples that passed threshold k - 1; the first of all samples.
        self.register_buffer("asked", torch.cat([torch.ones(num_classes, 1), levels[:, :-1]], 1), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K - 1], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs, self.num_classes)
        logits = raise_precision(logits)
        above = self.levels.index_select(0, target).to(logits.dtype)
        asked = self.asked.index_select(0, target).to(logits.dtype)
        terms = functional.binary_cross_entropy_with_logits(logits, above, asked, reduction="none")
        if self.reduction == "mean":
            return terms.sum() / asked.sum()
        return reduce(terms.sum(1), self.reduction)
