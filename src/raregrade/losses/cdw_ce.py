"""CDW-CE: class distance weighted cross-entropy for ordinal grades (Polat et al., arXiv 2202.05167, 2412.01246)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from raregrade.losses.base import Loss, check_class_range, check_class_shapes, raise_precision, reduce
from raregrade.losses.definition import ORDINAL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import FloatRange, Scalar, Space

_TIGHTEN_EPS = 1e-7


class CDWCE(LossDefinition):
    """Class distance weighted cross-entropy, arXiv 2202.05167; margin of arXiv 2412.01246.

    ``power`` is the exponent of the distance; with two classes every power is cross-entropy. ``margin`` 0 is the
    published loss. The paper's margin formula is undefined as printed, and two readings of it are in use; both bound a
    term, and with it the penalty of a confident error. ``dead_zone``: log(min(1 - p_i + m, 1)), no penalty while
    p_i <= m, at most -log(m) per unit of weight. ``tighten``: log(1 - min(p_i + m, 1 - 1e-7)), a penalty for every p_i,
    at most -log(1e-7) per unit of weight, where its gradient is 0.
    """

    tasks = ORDINAL
    power: float = Field(5.0, gt=0, le=20)
    margin: float = Field(0.0, ge=0, lt=1)
    margin_form: Literal["dead_zone", "tighten"] = "dead_zone"
    # The margin is searched where params.yaml names it: the published formula has two readings.
    SEARCH: ClassVar[dict[str, Space]] = {"power": FloatRange(low=0.5, high=10.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"power": 5.0}, {"power": 6.0}, {"power": 7.0})

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> CDWCELoss:
        return CDWCELoss(self, num_classes=labels.num_classes, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-sum_i |i - y|^power log(1 - p_i); arXiv 2202.05167, with the margin within the logarithm."""
        p = logits.softmax(1)
        distance = (torch.arange(labels.num_classes) - target[:, None]).abs().double() ** self.power
        if self.margin_form == "dead_zone":
            miss = (1 - p + self.margin).clamp(max=1)
        else:
            miss = 1 - (p + self.margin).clamp(max=1 - _TIGHTEN_EPS)
        return -(distance * miss.log()).sum(1).mean()


class CDWCELoss(Loss):
    """-sum_i |i - y|^power log(1 - p_i), p = softmax(z): a wrong class costs more the farther it is from the grade.

    Without a margin, value and gradient are exact for every logit, also for confident worst errors. ``num_classes`` is
    C; None takes any.
    """

    def __init__(self, params: CDWCE, *, num_classes: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(num_classes, reduction=reduction)
        self.power, self.margin, self.margin_form = params.power, params.margin, params.margin_form
        # The sign of the formula is kept in the table, which saves an operation.
        table = None if num_classes is None else -distance_weights(num_classes, params.power)
        self.add_constant("minus_weights", table)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_shapes(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        table = self.optional_constant("minus_weights", logits.dtype)
        if table is None:
            table = -distance_weights(logits.shape[1], self.power).to(logits)
        try:
            return self._loss(logits, table, target)
        except (
            IndexError,
            RuntimeError,
        ):  # on the CPU, reading a row of the table checks the range of the target at no cost
            check_class_range(target, len(table))
            raise

    def _loss(self, logits: Tensor, table: Tensor, target: Tensor) -> Tensor:
        if self.margin == 0.0:
            exact: Tensor = _ExactCDWCE.apply(logits, table, target, self.reduction)
            return exact
        p = logits.t().softmax(0)  # [C, B]: a reduction over few classes is then an addition of long rows
        if self.margin_form == "dead_zone":
            miss = (1.0 + self.margin - p).clamp_max(1.0)
        else:
            miss = (1.0 - self.margin - p).clamp_min(_TIGHTEN_EPS)
        return reduce((table.index_select(1, target) * miss.log()).sum(0), self.reduction)


def distance_weights(num_classes: int, power: float) -> Tensor:
    """|i - j|^power, float64 [C, C]."""
    grades = torch.arange(num_classes, dtype=torch.float64)
    return (grades[:, None] - grades[None, :]).abs().pow(power)


class _ExactCDWCE(torch.autograd.Function):
    """-sum_i w_i log(1 - p_i) and its gradient, without cancellation for any logits.

    Let a be the most probable class, L the logsumexp of the others' logits and c_i = exp(z_i - L) their softmax. Then
    log(1 - p_a) = logsigmoid(L - z_a), exact however large the logits, and p_i = c_i (1 - p_a) <= 1/2 for the others.
    With r_i = w_i p_i / (1 - p_i) and R = sum_{i != a} r_i, the gradient is r_k - c_k (R (1 - p_a) + w_a p_a) for
    k != a, and p_a (w_a - R) for a: no term grows with the gap.

    All is worked on [C, B], classes first: reductions over few classes are then additions of long rows, several times
    as fast on a CPU, and tensors are reused, since fresh memory costs as much as the arithmetic. The gradient is
    computed in the forward pass, because it shares most of its terms with the value.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, table: Tensor, target: Tensor, reduction: Reduction) -> Tensor:
        """``logits`` [B, C], ``table`` of -w [C, C], ``target`` [B] -> scalar, or [B] for ``none``."""
        top, best = logits.max(1)
        best = best.unsqueeze(0)
        others = logits.t().clone(memory_format=torch.contiguous_format).scatter_(0, best, -torch.inf)
        c = others.softmax(0)  # 0 at a
        # L from any of the others is z_i - log c_i; the largest of them loses nothing.
        second = others.amax(0, keepdim=True)
        log_miss_best = functional.logsigmoid(second.sub_(c.amax(0, keepdim=True).log_()).sub_(top))
        minus_miss_best = log_miss_best.exp().neg_()
        minus_p = torch.mul(c, minus_miss_best, out=others)  # 0 at a
        minus_w = table.index_select(1, target)
        minus_w_best = minus_w.gather(0, best)
        loss = minus_p.log1p().mul_(minus_w).sum(0, keepdim=True).addcmul_(minus_w_best, log_miss_best)
        if ctx.needs_input_grad[0]:
            r = minus_w.mul_(minus_p).div_(minus_p.add_(1.0))
            total = r.sum(0, keepdim=True)
            minus_p_best = torch.rsub(minus_miss_best, -1.0)  # p_a is at least 1 / C, so nothing cancels
            pull = minus_w_best * minus_p_best
            gradient = r.addcmul_(c, torch.addcmul(pull, total, minus_miss_best, value=-1.0), value=-1.0)
            gradient.scatter_(0, best, torch.addcmul(pull, total, minus_p_best))
            saved = c.view(logits.shape).copy_(gradient.t())
            ctx.save_for_backward(saved.mul_(1.0 / len(target)) if reduction == "mean" else saved)
        return loss.squeeze(0) if reduction == "none" else reduce(loss, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        per_sample = grad_output.dim() > 0
        return gradient * (grad_output.unsqueeze(1) if per_sample else grad_output), None, None, None
