"""Balanced softmax (Ren et al., arXiv 2007.10740), which is logit adjustment (arXiv 2007.07314) with tau = 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import Loss, check_class_target, check_counts, raise_precision
from raregrade.losses.definition import SINGLE_LABEL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import FloatRange, Scalar, Space


class BalancedSoftmax(LossDefinition):
    """Balanced softmax, arXiv 2007.10740; with another ``tau`` logit adjustment, arXiv 2007.07314.

    ``tau``: 0 is cross-entropy, 1 balanced softmax.
    """

    tasks = SINGLE_LABEL
    tau: float = Field(1.0, ge=0, le=10)
    SEARCH: ClassVar[dict[str, Space]] = {"tau": FloatRange(low=0.25, high=2.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"tau": 1.0},)

    @property
    def corrects_prior(self) -> bool:
        return self.tau > 0

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> BalancedSoftmaxLoss:
        return BalancedSoftmaxLoss(self, labels.counts(), reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-log(n_y^tau exp(z_y) / sum_j n_j^tau exp(z_j)); arXiv 2007.10740 for tau = 1."""
        weighted = torch.tensor(labels.counts(), dtype=torch.float64) ** self.tau * logits.exp()
        return -(weighted.gather(1, target[:, None]).squeeze(1) / weighted.sum(1)).log().mean()


class BalancedSoftmaxLoss(Loss):
    """CE(z + tau log(n / N), y); probabilities are softmax(z), without the adjustment: that is what rebalances.

    ``class_counts`` are the n_j of the training images, all positive.
    """

    def __init__(
        self, params: BalancedSoftmax, class_counts: Sequence[int] | Tensor, *, reduction: Reduction = "mean"
    ) -> None:
        counts = check_counts(class_counts)
        super().__init__(len(counts), reduction=reduction)
        self.add_constant("adjustment", params.tau * torch.log(counts / counts.sum()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        return functional.cross_entropy(
            logits + self.constant("adjustment", logits.dtype), target, reduction=self.reduction
        )
