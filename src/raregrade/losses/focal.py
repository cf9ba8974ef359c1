"""Focal loss for single-label classes (Lin et al., arXiv 1708.02002), focusing each sample by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.losses.base import Loss, check_class_target, check_class_weights, raise_precision, reduce
from raregrade.losses.cross_entropy import inverse_frequency_weights
from raregrade.losses.definition import SINGLE_LABEL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import Choice, FloatRange, Scalar, Space


class Focal(LossDefinition):
    """Focal loss, arXiv 1708.02002. ``weighting: inverse`` adds the class weights N / (C n_j).

    ``gamma``: 0 is cross-entropy; the larger, the less the samples count that are already right.
    """

    tasks = SINGLE_LABEL
    gamma: float = Field(1.5, ge=0, le=20)
    weighting: Literal["none", "inverse"] = "none"
    SEARCH: ClassVar[dict[str, Space]] = {
        "gamma": FloatRange(low=0.5, high=5.0),
        "weighting": Choice(choices=("none", "inverse")),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma": 2.0, "weighting": "none"},)

    @property
    def corrects_prior(self) -> bool:
        return self.weighting == "inverse"

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> FocalLoss:
        return FocalLoss(self, self._weights(labels), num_classes=labels.num_classes, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """w_y (1 - p_y)^gamma (-log p_y), equation 5 of arXiv 1708.02002 with w as alpha."""
        weights = self._weights(labels)
        p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
        loss = (1 - p) ** self.gamma * -p.log()
        return (loss if weights is None else weights[target] * loss).mean()

    def _weights(self, labels: TrainingLabels) -> Tensor | None:
        return inverse_frequency_weights(labels.counts()) if self.weighting == "inverse" else None


class FocalLoss(Loss):
    """w_y (1 - p_y)^gamma (-log p_y), p = softmax(z) without weights; ``mean`` divides by B.

    Args:
        params: gamma; the weights that ``weighting`` names are given as ``class_weights``.
        class_weights: [C], none negative, or None.
        num_classes: C; None takes any.
    """

    def __init__(
        self,
        params: Focal,
        class_weights: Sequence[float] | Tensor | None = None,
        *,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        weights = check_class_weights(class_weights, num_classes)
        super().__init__(num_classes if weights is None else len(weights), reduction=reduction)
        self.gamma = params.gamma
        self.add_constant("class_weights", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.optional_constant("class_weights", logits.dtype)
        loss: Tensor = _Focal.apply(logits, target, weights, self.gamma, self.reduction)
        return loss


def focal_and_slope(cross_entropy: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """f = (1 - exp(-h))^gamma h of the cross-entropy h >= 0, and df / dh.

    df / dh = m^gamma (1 + gamma (1 - m) h / m) with m = 1 - exp(-h), without cancellation; m is kept above 0, where
    the limit of the quotient is 1 and f and its slope are 0.
    """
    miss = cross_entropy.neg().expm1_().neg_()
    bounded = miss.clamp_min(torch.finfo(miss.dtype).tiny)
    power = bounded.pow(gamma)
    ratio = torch.addcmul(cross_entropy, cross_entropy, miss, value=-1.0).div_(bounded)
    return power * cross_entropy, ratio.mul_(gamma).add_(1.0).mul_(power)


def softmax_and_cross_entropy(logits: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """softmax [C, B] and cross-entropy [1, B] of ``logits`` [C, B], classes first, for the classes ``row`` [1, B].

    One exponential instead of two: the normaliser is read off the largest probability, which is never small.
    """
    p = logits.softmax(0)
    gap = logits.amax(0, keepdim=True).sub_(logits.gather(0, row))
    return p, gap.sub_(p.amax(0, keepdim=True).log_())


class _Focal(torch.autograd.Function):
    """Focal loss with its gradient, slope_b (p - onehot(y)): a chain of small autograd steps costs twice as much.

    Worked on [C, B], classes first, as a reduction over few classes is then an addition of long rows.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - a Function takes its inputs by position
        ctx: Any, logits: Tensor, target: Tensor, weights: Tensor | None, gamma: float, reduction: Reduction
    ) -> Tensor:
        row = target.unsqueeze(0)
        p, cross_entropy = softmax_and_cross_entropy(logits.t().contiguous(), row)
        loss, slope = focal_and_slope(cross_entropy, gamma)
        if weights is not None:
            sample_weights = weights.index_select(0, target)
            loss, slope = loss * sample_weights, slope * sample_weights
        if ctx.needs_input_grad[0]:
            ctx.scale = 1.0 / len(target) if reduction == "mean" else 1.0
            ctx.save_for_backward(p.mul_(slope).scatter_add_(0, row, slope.neg()))
        return loss.squeeze(0) if reduction == "none" else reduce(loss, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * (grad_output * ctx.scale)).t(), None, None, None, None
