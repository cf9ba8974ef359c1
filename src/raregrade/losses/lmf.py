"""LMF: the large margin aware focal loss, alpha * LDAM + beta * focal (Sadi et al., arXiv 2212.12741)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.errors import UserError
from raregrade.losses.base import HeadSpec, Loss, Reduction, check_class_target, check_range, raise_precision
from raregrade.losses.focal import focal_and_slope, softmax_and_cross_entropy
from raregrade.losses.ldam import LDAMLoss, ldam_margins

WEIGHTINGS = ("none", "margin")


class LMFLoss(Loss):
    """alpha * LDAM(z, y) + beta * Focal(z, y) on the same logits.

    Args:
        class_counts: n_j of the training images, all positive.
        alpha: weighs LDAM.
        beta: weighs focal.
        gamma: focusing power of focal.
        max_margin: LDAM margin of the rarest class.
        scale: LDAM scale s.
        weighting: ``margin`` uses the LDAM margins as class weights in both terms, as the authors' code does (LDAM's
            mean is then divided by the sum of weights, focal's by B); ``none`` weighs all classes alike.
        logit_scale: factor that the logits already carry, see ``LDAMLoss``. Focal sees the logits as they are.
    """

    def __init__(  # noqa: PLR0917 - by position as the formula has them
        self,
        class_counts: Sequence[int] | Tensor,
        alpha: float = 1.5,
        beta: float = 1.0,
        gamma: float = 1.5,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weighting: Literal["none", "margin"] = "none",
        *,
        logit_scale: float = 1.0,
        head: HeadSpec | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            check_range(name, value, 0.0, float("inf"), open_high=True)
        if weighting not in WEIGHTINGS:
            raise UserError(f"weighting {weighting!r} is unknown; allowed: {', '.join(WEIGHTINGS)}")
        weights = ldam_margins(class_counts, max_margin) if weighting == "margin" else None
        ldam = LDAMLoss(class_counts, max_margin, scale, weights, logit_scale=logit_scale, reduction=reduction)
        super().__init__(ldam.num_outputs, head=head, reduction=reduction)
        self.ldam = ldam
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        ldam_weights, focal_weights = self._sample_weights(target, logits.dtype)
        shift = self.ldam.constant("shift", logits.dtype)
        loss: Tensor = _LMF.apply(
            logits, target, shift, self.ldam.factor, ldam_weights, focal_weights, self.gamma, self.reduction
        )
        return loss

    def _sample_weights(self, target: Tensor, dtype: torch.dtype) -> tuple[Tensor | float, Tensor | float]:
        """What multiplies LDAM and focal of each sample: alpha, beta, class weights and the divisors of ``mean``."""
        weights = self.ldam.optional_constant("class_weights", dtype)
        count = len(target) if self.reduction == "mean" else 1
        if weights is None:
            return self.alpha / count, self.beta / count
        chosen = weights.index_select(0, target)
        total = chosen.sum() if self.reduction == "mean" else 1.0
        return chosen * (self.alpha / total), chosen * (self.beta / count)


class _LMF(torch.autograd.Function):
    """Sum of both terms with its gradient: both need the same steps, which autograd would take one by one.

    Worked on [C, B], classes first, as a reduction over few classes is then an addition of long rows.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - a Function takes its inputs by position
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        shift: Tensor,
        factor: float,
        ldam_weights: Tensor | float,
        focal_weights: Tensor | float,
        gamma: float,
        reduction: Reduction,
    ) -> Tensor:
        row = target.unsqueeze(0)
        z = logits.t().contiguous()
        p, cross_entropy = softmax_and_cross_entropy(z, row)
        q, ldam = softmax_and_cross_entropy(shift.index_select(1, target).add_(z, alpha=factor), row)
        focal, slope = focal_and_slope(cross_entropy, gamma)
        loss = focal.mul_(focal_weights).add_(ldam.mul_(ldam_weights))
        if ctx.needs_input_grad[0]:
            slope = slope.mul_(focal_weights)
            pull = ldam_weights * factor
            gradient = p.mul_(slope).add_(q.mul_(pull))
            ctx.save_for_backward(gradient.scatter_add_(0, row, (slope + pull).neg_()))
        return loss.squeeze(0) if reduction == "none" else loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_output).t(), None, None, None, None, None, None, None
