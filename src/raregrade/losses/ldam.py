"""LDAM: label-distribution-aware margins (Cao et al., arXiv 1906.07413), and its deferred re-weighting (DRW)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import (
    HeadSpec,
    Loss,
    Reduction,
    check_class_target,
    check_class_weights,
    check_counts,
    check_range,
    raise_precision,
)


def ldam_margins(class_counts: Sequence[int] | Tensor, max_margin: float = 0.5) -> Tensor:
    """m_j = max_margin * n_j^(-1/4) / max_k n_k^(-1/4), float64 [C]: the rarest class gets ``max_margin``."""
    check_range("max_margin", max_margin, 0.0, float("inf"), open_high=True)
    raw = check_counts(class_counts).pow(-0.25)
    return max_margin * raw / raw.max()


class LDAMLoss(Loss):
    """CE(s (z - m_y onehot(y)), y): the true class must win by a margin, the larger the rarer it is.

    Args:
        class_counts: n_j of the training images, all positive.
        max_margin: margin of the rarest class.
        scale: s.
        class_weights: [C] or None; ``mean`` divides by the sum of the samples' weights, as the authors do.
        logit_scale: factor that the logits already carry. A cosine head returns ``scale`` * cos, so with
            ``logit_scale = scale`` the loss applies margin * scale and doesn't scale again.
    """

    def __init__(
        self,
        class_counts: Sequence[int] | Tensor,
        max_margin: float = 0.5,
        scale: float = 30.0,
        class_weights: Sequence[float] | Tensor | None = None,
        *,
        logit_scale: float = 1.0,
        head: HeadSpec | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        margins = ldam_margins(class_counts, max_margin)
        check_range("scale", scale, 0.0, float("inf"), open_low=True, open_high=True)
        check_range("logit_scale", logit_scale, 0.0, float("inf"), open_low=True, open_high=True)
        super().__init__(len(margins), head=head, reduction=reduction)
        self.factor = scale / logit_scale
        self.add_constant("class_weights", check_class_weights(class_weights, len(margins)))
        # Row y is -s m_y at column y and 0 elsewhere: one gather of rows replaces a one-hot, a product and a sum.
        self.add_constant("shift", torch.diag(-scale * margins))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.optional_constant("class_weights", logits.dtype)
        return functional.cross_entropy(self.shifted(logits, target), target, weights, reduction=self.reduction)

    def shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        """s (z - m_y onehot(y)), [B, C], in the dtype of ``logits``."""
        rows = self.constant("shift", logits.dtype).index_select(0, target)
        return torch.add(rows, logits, alpha=self.factor)


class DRWLoss(LDAMLoss):
    """LDAM that weighs all classes alike until ``start`` of the epochs has passed, then by ``deferred_weights``."""

    def __init__(
        self,
        class_counts: Sequence[int] | Tensor,
        deferred_weights: Sequence[float] | Tensor,
        start: float = 0.8,
        max_margin: float = 0.5,
        scale: float = 30.0,
        *,
        logit_scale: float = 1.0,
        head: HeadSpec | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_range("start", start, 0.0, 1.0)
        ones = torch.ones(len(class_counts), dtype=torch.float64)
        super().__init__(class_counts, max_margin, scale, ones, logit_scale=logit_scale, head=head, reduction=reduction)
        weights = check_class_weights(deferred_weights, self.num_outputs)
        if weights is None:
            raise UserError("deferred_weights are needed: they are what the deferred re-weighting changes to")
        self.start = start
        self.add_constant("equal_weights", ones)
        self.add_constant("deferred_weights", weights)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Weights for ``epoch`` (from 0) of ``epochs``."""
        current = "deferred_weights" if epoch >= self.start * epochs else "equal_weights"
        self.class_weights = self.constant(current, torch.float32)
        self.class_weights_float64 = self.constant(current, torch.float64)
