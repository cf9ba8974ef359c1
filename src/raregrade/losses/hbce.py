"""HBCE: binary cross-entropy plus a penalty for a child without its parent (Asadi et al., arXiv 2502.03591).

The published penalty (``hard``) has no gradient. The differentiable one (``soft``) is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raregrade.errors import UserError
from raregrade.labels import LabelStatistics
from raregrade.losses.base import Loss, Reduction, check_label_target, check_range, raise_precision, reduce
from raregrade.losses.bce import binary_cross_entropy

Edges = Sequence[tuple[int, int]]
Penalty = float | Literal["data_driven"] | Mapping[tuple[int, int], float]
MODES = ("hard", "soft")
_EPS = 1e-6  # of the authors' data-driven formula


class HBCELoss(Loss):
    """Mean BCE over the labels + sum over the edges (u, v) of P_uv times how far v is predicted without u.

    ``hard`` is the published penalty, P_uv where p_u < 0.5 and p_v > 0.5. It is a step function, so **its gradient
    equals plain BCE's**: it changes the value of the loss, and with it what watches that value, but not training by
    gradients. ``soft``, ours, is P_uv max(p_v - p_u, 0): zero just where the child isn't more probable than its
    parent, and its gradient does reduce violations.

    Args:
        edges: (parent, child) label indices of a directed acyclic graph.
        penalty: P_uv: one number, ``data_driven``, or a number for each edge.
        mode: ``hard`` or ``soft``.
        scale: multiplies data-driven penalties only.
        statistics: counts over the training labels, for ``data_driven``.
        num_labels: K; None takes any that the edges fit.
    """

    parent_index: Tensor
    child_index: Tensor

    decision = "threshold"

    def __init__(
        self,
        edges: Edges,
        penalty: Penalty = 0.5,
        mode: Literal["hard", "soft"] = "hard",
        scale: float = 1.0,
        *,
        statistics: LabelStatistics | None = None,
        num_labels: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown; allowed: {', '.join(MODES)}")
        check_range("scale", scale, 0.0, float("inf"), open_high=True)
        super().__init__(num_labels, output="sigmoid", reduction=reduction)
        pairs = _check_edges(edges, num_labels)
        self.mode = mode
        self.register_buffer("parent_index", torch.tensor([u for u, _ in pairs], dtype=torch.int64), persistent=False)
        self.register_buffer("child_index", torch.tensor([v for _, v in pairs], dtype=torch.int64), persistent=False)
        self.add_constant("penalties", _edge_penalties(pairs, penalty, scale, statistics))

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


def data_driven_penalties(edges: Edges, statistics: LabelStatistics, scale: float = 1.0) -> Tensor:
    """scale * (1 - (N(u=0, v=1) + eps) / (N(u=0) + 2 eps)), eps = 1e-6, by the authors' code. float64 [E].

    N counts training images of which u and v are both known. Where parents never contradict children, and some image
    has u = 0, this is close to ``scale`` on every edge.
    """
    pairs = list(edges)
    absent = torch.tensor([int(statistics.absent_parent[u, v]) for u, v in pairs], dtype=torch.float64)
    broken = torch.tensor([int(statistics.absent_parent_present_child[u, v]) for u, v in pairs], dtype=torch.float64)
    return scale * (1.0 - (broken + _EPS) / (absent + 2 * _EPS))


def _check_edges(edges: Edges, num_labels: int | None) -> list[tuple[int, int]]:
    pairs = [(int(u), int(v)) for u, v in edges]
    if not pairs:
        raise UserError("HBCE needs a hierarchy: edges is empty. Give (parent, child) pairs, or use bce")
    for u, v in pairs:
        if min(u, v) < 0 or (num_labels is not None and max(u, v) >= num_labels):
            known = "0 and up" if num_labels is None else f"0 to {num_labels - 1}"
            raise UserError(f"edge ({u}, {v}) names an unknown label; the labels are {known}")
    if len(set(pairs)) < len(pairs):
        raise UserError(f"an edge is given twice: {sorted({p for p in pairs if pairs.count(p) > 1})}")
    graph: dict[int, set[int]] = {}
    for u, v in pairs:
        graph.setdefault(v, set()).add(u)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        raise UserError(f"the edges have a cycle: {' -> '.join(str(n) for n in err.args[1])}") from err
    return pairs


def _edge_penalties(
    pairs: list[tuple[int, int]], penalty: Penalty, scale: float, statistics: LabelStatistics | None
) -> Tensor:
    if isinstance(penalty, str):
        if penalty != "data_driven":
            raise UserError(f'penalty {penalty!r} is unknown; allowed: a number, "data_driven", a number for each edge')
        if statistics is None:
            raise UserError('penalty "data_driven" needs the statistics of the training labels; give statistics')
        return data_driven_penalties(pairs, statistics, scale)
    if isinstance(penalty, Mapping):
        if set(penalty) != set(pairs):
            missing, extra = sorted(set(pairs) - set(penalty)), sorted(set(penalty) - set(pairs))
            raise UserError(f"penalty must name every edge and no other; missing: {missing}, not an edge: {extra}")
        values = [float(penalty[pair]) for pair in pairs]
    else:
        values = [float(penalty)] * len(pairs)
    for pair, value in zip(pairs, values, strict=True):
        check_range(f"penalty of edge {pair}", value, 0.0, float("inf"), open_high=True)
    return torch.tensor(values, dtype=torch.float64)
