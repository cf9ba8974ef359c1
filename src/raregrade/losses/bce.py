"""Binary cross-entropies of multilabel tasks: plain, weighted, focal and asymmetric. NaN targets are left out.

The mean of a sample runs over its known labels; ``reduction="mean"`` then runs over the samples that have any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import Loss, Reduction, check_label_target, check_range, raise_precision


class BCELoss(Loss):
    """Mean over labels of -(w_k y log p + (1 - y) log(1 - p)), p = sigmoid(z).

    Args:
        num_labels: K; None takes any.
        positive_weights: w_k [K] of the positive term, or None.
    """

    decision = "threshold"

    def __init__(
        self,
        num_labels: int | None = None,
        positive_weights: Sequence[float] | Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        weights = check_positive_weights(positive_weights, num_labels)
        super().__init__(num_labels if weights is None else len(weights), output="sigmoid", reduction=reduction)
        self.add_constant("positive_weights", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` float [B, K] of 0, 1, NaN -> scalar, or [B] for ``none``."""
        check_label_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.optional_constant("positive_weights", logits.dtype)
        return binary_cross_entropy(logits, target, self.reduction, weights)


class FocalBCELoss(Loss):
    """Mean over labels of (1 - p_t)^gamma (-log p_t), p_t the probability of the label's true value."""

    decision = "threshold"

    def __init__(self, gamma: float = 2.0, *, num_labels: int | None = None, reduction: Reduction = "mean") -> None:
        check_range("gamma", gamma, 0.0, float("inf"), open_high=True)
        super().__init__(num_labels, output="sigmoid", reduction=reduction)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` float [B, K] of 0, 1, NaN -> scalar, or [B] for ``none``."""
        check_label_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        target, known = split_unknown(target, logits.dtype)
        terms = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        miss = -torch.expm1(-terms)  # 1 - p_t without cancellation
        return reduce_labels(
            miss.clamp_min(torch.finfo(miss.dtype).tiny).pow(self.gamma) * terms, known, self.reduction
        )


class AsymmetricLoss(Loss):
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119): negatives focus harder, and easy ones are dropped.

    Mean over labels of y (1 - p)^gamma_positive (-log p) + (1 - y) q^gamma_negative (-log(1 - q)),
    q = max(p - clip, 0).
    """

    decision = "threshold"

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        clip: float = 0.05,
        *,
        num_labels: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_range("gamma_negative", gamma_negative, 0.0, float("inf"), open_high=True)
        check_range("gamma_positive", gamma_positive, 0.0, float("inf"), open_high=True)
        check_range("clip", clip, 0.0, 1.0, open_high=True)
        super().__init__(num_labels, output="sigmoid", reduction=reduction)
        self.gamma_negative, self.gamma_positive, self.clip = gamma_negative, gamma_positive, clip

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` float [B, K] of 0, 1, NaN -> scalar, or [B] for ``none``."""
        check_label_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        target, known = split_unknown(target, logits.dtype)
        tiny = torch.finfo(logits.dtype).tiny
        positive = -functional.logsigmoid(logits) * torch.sigmoid(-logits).clamp_min(tiny).pow(self.gamma_positive)
        shifted = torch.sigmoid(logits) - self.clip
        # -log(1 - q), of the logit where there is no clip; a clip keeps 1 - q at ``clip`` at least.
        cost = -functional.logsigmoid(-logits) if self.clip == 0.0 else -torch.log1p(-shifted.clamp_min(0.0))
        negative = cost * shifted.clamp_min(tiny).pow(self.gamma_negative)
        return reduce_labels(target * positive + (1.0 - target) * negative, known, self.reduction)


def check_positive_weights(weights: Sequence[float] | Tensor | None, num_labels: int | None) -> Tensor | None:
    """``weights`` as float64 [K], or None. Raises UserError where one isn't positive and finite, or K differs."""
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.float64).detach().cpu().clone()
    if values.dim() != 1 or (num_labels is not None and len(values) != num_labels):
        raise UserError(f"positive_weights must have one value a label ({num_labels}), got shape {list(values.shape)}")
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise UserError(f"positive_weights must be positive and finite, got {values.tolist()}")
    return values


def split_unknown(target: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``target`` with NaN as 0, and 1 where it is known, 0 where not; both [B, K] of ``dtype``.

    By arithmetic on values in [0, 1]: comparisons and selections take several times as long on a CPU.
    """
    marked = target.to(dtype).nan_to_num(nan=-1.0)
    known = (marked + 1.0).clamp_max_(1.0)
    return marked.clamp_min_(0.0), known


def label_weights(known: Tensor, reduction: Reduction) -> Tensor:
    """Weights [B, K] that make a sum of terms the mean over each sample's known labels, and over samples for ``mean``.

    A sample without a known label weighs nothing and isn't counted.
    """
    count = known.sum(1, keepdim=True)
    if reduction == "mean":
        return known / (count.clamp_min(1.0) * count.clamp_max(1.0).sum().clamp_min(1.0))
    return known / count.clamp_min(1.0)


def reduce_labels(terms: Tensor, known: Tensor, reduction: Reduction) -> Tensor:
    """``terms`` [B, K] -> the mean over each sample's known labels, then ``reduction`` over the samples."""
    weighted = terms * label_weights(known, reduction)
    return weighted.sum(1) if reduction == "none" else weighted.sum()


def binary_cross_entropy(
    logits: Tensor, target: Tensor, reduction: Reduction, positive_weights: Tensor | None = None
) -> Tensor:
    """Mean over known labels of the binary cross-entropy; ``target`` [B, K] of 0, 1, NaN -> scalar, or [B]."""
    target, known = split_unknown(target, logits.dtype)
    terms = functional.binary_cross_entropy_with_logits(
        logits,
        target,
        weight=label_weights(known, reduction),
        pos_weight=positive_weights,
        reduction="none" if reduction == "none" else "sum",
    )
    return terms.sum(1) if reduction == "none" else terms
