"""LMF: the large margin aware focal loss, alpha * LDAM + beta * focal (Sadi et al., arXiv 2212.12741)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.losses.base import Loss, check_class_target, raise_precision
from raregrade.losses.definition import Reduction, TrainingLabels
from raregrade.losses.focal import focal_and_slope, softmax_and_cross_entropy
from raregrade.losses.ldam import LDAM, LDAMLoss, MarginDefinition, ldam_margins
from raregrade.schema import FloatRange, Scalar, Space


class LMF(MarginDefinition):
    """Large margin aware focal loss, arXiv 2212.12741.

    ``alpha`` weighs LDAM, ``beta`` focal. ``weighting: margin`` uses the LDAM margins as class weights in both terms,
    as the authors' code does: LDAM's mean is then divided by the sum of weights, focal's by B.
    """

    alpha: float = Field(1.5, ge=0, le=1000)
    beta: float = Field(1.0, ge=0, le=1000)
    gamma: float = Field(1.5, ge=0, le=20)
    weighting: Literal["none", "margin"] = "none"
    SEARCH: ClassVar[dict[str, Space]] = {
        **LDAM.SEARCH,
        "alpha": FloatRange(low=0.1, high=2.0, log=True),
        "beta": FloatRange(low=0.1, high=2.0, log=True),
        "gamma": FloatRange(low=0.5, high=3.0),
    }
    # The authors' example configuration, and the defaults of their class.
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = (
        {"alpha": 1.5, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 30.0},
        {"alpha": 1.0, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 30.0},
    )

    @property
    def corrects_prior(self) -> bool:
        return self.weighting == "margin"

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> LMFLoss:
        return LMFLoss(self, labels.counts(), reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """alpha LDAM + beta focal on the same logits; arXiv 2212.12741."""
        n = torch.tensor(labels.counts(), dtype=torch.float64)
        margins = self.max_margin * (n / n.min()) ** -0.25
        w = margins[target] if self.weighting == "margin" else torch.ones(len(target))
        p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
        ldam = (w * self.margin_reference(logits, target, labels)).sum() / w.sum()
        focal = (w * (1 - p) ** self.gamma * -p.log()).mean()
        return self.alpha * ldam + self.beta * focal


class LMFLoss(Loss):
    """alpha * LDAM(z, y) + beta * Focal(z, y) on the same logits; margin and scale are LDAM's alone.

    ``class_counts`` are the n_j of the training images, all positive.
    """

    def __init__(self, params: LMF, class_counts: Sequence[int] | Tensor, *, reduction: Reduction = "mean") -> None:
        weights = ldam_margins(class_counts, params.max_margin) if params.weighting == "margin" else None
        ldam = LDAMLoss(params, class_counts, weights, reduction=reduction)
        super().__init__(ldam.num_outputs, head=ldam.head, reduction=reduction)
        self.ldam = ldam
        self.alpha, self.beta, self.gamma = params.alpha, params.beta, params.gamma

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
