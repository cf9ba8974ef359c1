"""HBCE: binary cross-entropy plus a penalty for a child without its parent (Asadi et al., arXiv 2502.03591).

The published penalty (``hard``) has no gradient. The differentiable one (``soft``) is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.errors import ConfigError
from raregrade.losses.base import Loss, check_label_target, raise_precision, reduce
from raregrade.losses.bce import BCE, binary_cross_entropy
from raregrade.losses.definition import MULTILABEL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import Choice, FloatRange, Scalar, Space

_EPS = 1e-6  # of the authors' data-driven formula


def _nested_penalties(value: Any) -> Any:
    """``{(parent, child): p}`` as ``{parent: {child: p}}``, the form that YAML can hold."""
    if not isinstance(value, dict) or not any(isinstance(key, tuple) for key in value):
        return value
    nested: dict[Any, dict[Any, Any]] = {}
    for key, penalty in value.items():
        if not isinstance(key, tuple) or len(key) != 2:
            raise ValueError(f"{key!r} is not a (parent, child) pair")
        nested.setdefault(key[0], {})[key[1]] = penalty
    return nested


class HBCE(LossDefinition):
    """Hierarchical binary cross-entropy, arXiv 2502.03591.

    ``penalty``: one number for every edge, ``data_driven``, or ``{parent: {child: number}}`` with every edge.
    ``scale`` multiplies data-driven penalties only.
    """

    tasks = MULTILABEL
    penalty: Annotated[
        Annotated[float, Field(ge=0)] | Literal["data_driven"] | dict[str, dict[str, Annotated[float, Field(ge=0)]]],
        BeforeValidator(_nested_penalties),
    ] = 0.5
    mode: Literal["hard", "soft"] = "hard"
    scale: float = Field(1.0, ge=0, le=1000)
    # The hard penalty has no gradient: whatever its size, it trains as plain BCE does. So the mode is searched too.
    SEARCH: ClassVar[dict[str, Space]] = {
        "penalty": FloatRange(low=0.05, high=5.0, log=True),
        "scale": FloatRange(low=0.1, high=10.0, log=True),
        "mode": Choice(choices=("hard", "soft")),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"penalty": 0.5, "mode": "hard"},)

    def search(self) -> dict[str, Space]:
        """``scale`` multiplies data-driven penalties and no other."""
        without = "penalty" if self.penalty == "data_driven" or isinstance(self.penalty, dict) else "scale"
        unused = {without, "scale"} if isinstance(self.penalty, dict) else {without}
        return {name: space for name, space in self.SEARCH.items() if name not in unused}

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> HBCELoss:
        return HBCELoss(self, labels, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """BCE + sum_(u, v) P_uv [p_u < 0.5 and p_v > 0.5], arXiv 2502.03591; soft: max(p_v - p_u, 0)."""
        p = logits.sigmoid()
        violations = torch.zeros(len(p), dtype=torch.float64)
        for (u, v), penalty in zip(labels.space.edge_indices, self.penalties(labels), strict=True):
            hard = ((p[:, u] < 0.5) & (p[:, v] > 0.5)).double()
            violations = violations + penalty * (hard if self.mode == "hard" else (p[:, v] - p[:, u]).clamp(min=0))
        return BCE().reference(logits, target, labels) + violations.mean()

    def penalties(self, labels: TrainingLabels) -> Tensor:
        """P_uv of each edge, float64 [E].

        Data-driven: scale * (1 - (N(u=0, v=1) + eps) / (N(u=0) + 2 eps)), eps = 1e-6, by the authors' code. N counts
        training images of which u and v are both known. Where parents never contradict children, and some image has
        u = 0, this is close to ``scale`` on every edge.

        Raises:
            ConfigError: no hierarchy, penalties that don't name each edge once, or statistics that are not known.
        """
        space = labels.space
        if not space.edges:
            raise ConfigError("needs a hierarchy; give data.hierarchy as [parent, child] pairs, or use bce")
        if isinstance(self.penalty, float):
            return torch.full((len(space.edges),), self.penalty, dtype=torch.float64)
        if isinstance(self.penalty, dict):
            given = {(u, v): value for u, children in self.penalty.items() for v, value in children.items()}
            unknown = [edge for edge in given if edge not in space.edges]
            missing = [edge for edge in space.edges if edge not in given]
            if unknown or missing:
                raise ConfigError(
                    "penalty must name every edge of the hierarchy and no other; "
                    f"missing: {_arrows(missing)}; not an edge: {_arrows(unknown)}"
                )
            return torch.tensor([given[edge] for edge in space.edges], dtype=torch.float64)
        statistics = labels.count_statistics()
        parents, children = zip(*space.edge_indices, strict=True)
        absent = torch.from_numpy(statistics.absent_parent[parents, children]).double()
        broken = torch.from_numpy(statistics.absent_parent_present_child[parents, children]).double()
        return self.scale * (1.0 - (broken + _EPS) / (absent + 2 * _EPS))


def _arrows(edges: list[tuple[str, str]]) -> str:
    return ", ".join(f"{parent} -> {child}" for parent, child in edges) or "none"


class HBCELoss(Loss):
    """Mean BCE over the labels + sum over the edges (u, v) of P_uv times how far v is predicted without u.

    ``hard`` is the published penalty, P_uv where p_u < 0.5 and p_v > 0.5. It is a step function, so **its gradient
    equals plain BCE's**: it changes the value of the loss, and with it what watches that value, but not training by
    gradients. ``soft``, ours, is P_uv max(p_v - p_u, 0): zero just where the child isn't more probable than its
    parent, and its gradient does reduce violations.

    Args:
        params: penalty, mode and scale.
        labels: hierarchy, and statistics for data-driven penalties.
    """

    parent_index: Tensor
    child_index: Tensor

    decision = "threshold"

    def __init__(self, params: HBCE, labels: TrainingLabels, *, reduction: Reduction = "mean") -> None:
        super().__init__(labels.num_classes, output="sigmoid", reduction=reduction)
        self.mode = params.mode
        self.add_constant("penalties", params.penalties(labels))
        edges = torch.tensor(labels.space.edge_indices, dtype=torch.int64)
        self.register_buffer("parent_index", edges[:, 0].contiguous(), persistent=False)
        self.register_buffer("child_index", edges[:, 1].contiguous(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` float [B, K] of 0, 1, NaN -> scalar, or [B] for ``none``."""
        check_label_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        loss = binary_cross_entropy(logits, target, self.reduction)
        return loss + reduce(self.violations(logits), self.reduction)

    def violations(self, logits: Tensor) -> Tensor:
        """The penalty of each sample, [B]."""
        penalties = self.constant("penalties", logits.dtype)
        if self.mode == "soft":
            soft: Tensor = _SoftPenalty.apply(logits, self.parent_index, self.child_index, penalties)
            return soft
        # p < 0.5 is z < 0. As products of 0 and 1: comparisons take several times as long on a CPU.
        sign = logits.detach().sign()
        present = sign.clamp_min(0.0).index_select(1, self.child_index)
        absent = sign.neg_().clamp_min_(0.0).index_select(1, self.parent_index)
        return present.mul_(absent).mul_(penalties).sum(1)


class _SoftPenalty(torch.autograd.Function):
    """sum_e P_e max(p_v - p_u, 0), [B], and its gradient.

    By hand, since the backward pass of a selection of columns is slow: on [K, B], labels first, both the selection
    and the sum over the edges of a label move whole rows.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, parents: Tensor, children: Tensor, penalties: Tensor) -> Tensor:
        """``logits`` [B, K], ``parents``, ``children`` and ``penalties`` [E] -> [B]."""
        p = logits.t().clone(memory_format=torch.contiguous_format).sigmoid_()
        excess = p.index_select(0, children).sub_(p.index_select(0, parents)).clamp_min_(0.0)
        weighted = excess.mul_(penalties.unsqueeze(1))
        penalty = weighted.sum(0)  # not a matrix product, which would lose precision under autocast
        if ctx.needs_input_grad[0]:
            active = weighted.sign_().mul_(penalties.unsqueeze(1))
            gradient = torch.zeros_like(p).index_add_(0, children, active).index_add_(0, parents, active, alpha=-1)
            gradient.mul_(p).addcmul_(gradient, p, value=-1.0)  # p (1 - p) of the sigmoid
            ctx.save_for_backward(p.view(logits.shape).copy_(gradient.t()))
        return penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.unsqueeze(1), None, None, None
