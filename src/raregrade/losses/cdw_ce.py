"""CDW-CE: class distance weighted cross-entropy for ordinal grades (Polat et al., arXiv 2202.05167, 2412.01246)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.errors import UserError
from raregrade.losses.base import Loss, Reduction, check_class_target, check_range, raise_precision, reduce

MARGIN_FORMS = ("dead_zone", "tighten")
_TIGHTEN_EPS = 1e-7


class CDWCELoss(Loss):
    """-sum_i |i - y|^power log(1 - p_i), p = softmax(z): a wrong class costs more the farther it is from the grade.

    Without a margin, value and gradient are exact for every logit, also for confident worst errors.

    Args:
        power: the exponent of the distance. With two classes every power is cross-entropy.
        margin: 0 is the published loss. Both forms bound a term, and with it the penalty of a confident error.
        margin_form: the paper's margin formula is undefined as printed; two readings are in use.
            ``dead_zone``: log(min(1 - p_i + m, 1)), no penalty while p_i <= m, at most -log(m) per unit of weight.
            ``tighten``: log(1 - min(p_i + m, 1 - 1e-7)), a penalty for every p_i, at most -log(1e-7) per unit of
            weight, where its gradient is 0.
        num_classes: C; None takes any.
    """

    def __init__(
        self,
        power: float = 5.0,
        margin: float = 0.0,
        margin_form: Literal["dead_zone", "tighten"] = "dead_zone",
        *,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_range("power", power, 0.0, float("inf"), open_low=True, open_high=True)
        check_range("margin", margin, 0.0, 1.0, open_high=True)
        if margin_form not in MARGIN_FORMS:
            raise UserError(f"margin_form {margin_form!r} is unknown; allowed: {', '.join(MARGIN_FORMS)}")
        super().__init__(num_classes, reduction=reduction)
        self.power, self.margin, self.margin_form = power, margin, margin_form
        self.add_constant("distance_weights", None if num_classes is None else distance_weights(num_classes, power))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        table = self.optional_constant("distance_weights", logits.dtype)
        if table is None:
            table = distance_weights(logits.shape[1], self.power).to(logits)
        weights = table.index_select(0, target)
        if self.margin == 0.0:
            loss = _ExactCDWCE.apply(logits, weights)
        elif self.margin_form == "dead_zone":
            loss = -(weights * (1.0 + self.margin - logits.softmax(1)).clamp_max(1.0).log()).sum(1)
        else:
            loss = -(weights * (1.0 - self.margin - logits.softmax(1)).clamp_min(_TIGHTEN_EPS).log()).sum(1)
        return reduce(loss, self.reduction)


def distance_weights(num_classes: int, power: float) -> Tensor:
    """|i - j|^power, float64 [C, C]."""
    grades = torch.arange(num_classes, dtype=torch.float64)
    return (grades[:, None] - grades[None, :]).abs().pow(power)


class _ExactCDWCE(torch.autograd.Function):
    """-sum_i w_i log(1 - p_i), [B], and its gradient, without cancellation for any logits.

    Let a be the most probable class, e_j = exp(z_j - m) for j != a with m the second largest logit, s = sum_j e_j and
    g = exp(m - z_a) <= 1. Then 1 - p_a = g s / (1 + g s), of which the logarithm is log s - (z_a - m) - log(1 + g s),
    and 1 - p_i = (1 + g s - g e_i) / (1 + g s) >= 1/2 for the others: logsumexp over the other classes in both cases.
    With r_i = w_i p_i / (1 - p_i) the gradient is r_k - p_k sum_i r_i. The term of a in it is rewritten, since r_a
    overflows: w_a p_a for k = a, and -w_a p_a e_k / s for the others.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weights: Tensor) -> Tensor:
        top, best = logits.max(1, keepdim=True)
        others = logits.scatter(1, best, -torch.inf)
        second = others.amax(1, keepdim=True)
        gap = top - second
        e = (others - second).exp_()
        s = e.sum(1, keepdim=True)
        g = gap.neg().exp_()
        denominator = g * s + 1.0
        p_best = denominator.reciprocal()
        p = e * (g * p_best)  # 0 at a
        log_miss = torch.log1p(-p)  # 0 at a
        weight_best = weights.gather(1, best)
        log_miss_best = s.log() - gap - denominator.log()
        loss = -((weights * log_miss).sum(1, keepdim=True) + weight_best * log_miss_best).squeeze(1)
        ratio = weights * p / (1.0 - p)  # r_i, 0 at a
        total = ratio.sum(1, keepdim=True)
        pull = weight_best * p_best
        gradient = ratio - p * total - e * (pull / s)
        gradient = gradient.scatter(1, best, pull - p_best * total)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.unsqueeze(1), None
