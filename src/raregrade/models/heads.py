"""Classification heads on features [B, D], and the maths of rebalancing a trained one.

Which head a loss needs is the loss's to say; backbones live elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raregrade.errors import ModelError

HEADS: tuple[str, ...] = ("linear", "cosine", "coral")


def create_head(kind: str, in_features: int, num_outputs: int, scale: float = 1.0) -> nn.Module:
    """The head ``kind``: features [B, in_features] -> logits [B, num_outputs]; ``scale`` is a cosine head's.

    Raises:
        ModelError: unknown kind.
    """
    if kind == "cosine":
        return CosineHead(in_features, num_outputs, scale)
    if kind == "coral":
        return CoralHead(in_features, num_outputs)
    if kind == "linear":
        return LinearHead(in_features, num_outputs)
    raise ModelError(f"unknown head {kind!r}; allowed: {', '.join(HEADS)}")


class LinearHead(nn.Linear):
    """w·f + b."""

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)


class CosineHead(nn.Module):
    """``scale`` * cos(w_j, f), in [-scale, scale], as LDAM assumes. A feature vector of zeros gives logits of 0."""

    def __init__(self, in_features: int, num_outputs: int, scale: float) -> None:
        super().__init__()
        if not scale > 0 or not math.isfinite(scale):
            raise ModelError(f"scale = {scale!r} of a cosine head must be positive and finite")
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_outputs, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, num_outputs]. Lengths are taken in float32, where half precision would overflow."""
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        directions = functional.normalize(features, dim=1)
        return self.scale * functional.linear(directions, functional.normalize(self.weight.to(features.dtype), dim=1))


class CoralHead(nn.Module):
    """One score for all thresholds and a bias for each, z_k = w·f + b_k (CORAL, arXiv 1901.07884)."""

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.score = nn.Linear(in_features, 1, bias=False)
        # Falling biases: P(y > k) starts ordered, and no threshold starts saturated.
        self.bias = nn.Parameter(torch.arange(num_outputs, 0, -1, dtype=torch.float32) / num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, num_outputs]."""
        score: Tensor = self.score(features)
        return score + self.bias


class LearnableWeightScaling(nn.Module):
    """A trained linear head, frozen, and a learnable factor for each class, f_j w_j·x + b_j (LWS, arXiv 1910.09217)."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.head.requires_grad_(False)
        self.factors = nn.Parameter(torch.ones(head.out_features, dtype=head.weight.dtype, device=head.weight.device))

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        return functional.linear(features, self.factors[:, None] * self.head.weight, self.head.bias)

    def folded(self) -> LinearHead:
        """A plain linear head with the same logits."""
        return _linear_head(self.factors.detach()[:, None] * self.head.weight.detach(), self.head.bias)


def tau_normalise(weight: Tensor, tau: float) -> Tensor:
    """w_j / ||w_j||^tau for the rows of ``weight`` [C, D] (arXiv 1910.09217): 0 changes nothing, 1 gives unit length.

    Raises:
        ModelError: not a matrix, or a row of zeros while tau > 0, which has no direction.
    """
    if weight.dim() != 2:
        raise ModelError(f"expected a weight matrix [C, D], got shape {list(weight.shape)}")
    if tau == 0:
        return weight.clone()
    lengths = weight.norm(dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        rows = (lengths.flatten() == 0).nonzero().flatten().tolist()
        raise ModelError(f"the weights of classes {rows} are all 0 and have no direction to keep; train the head first")
    normalised: Tensor = weight / lengths.pow(tau)
    return normalised


def tau_normalised_head(head: nn.Linear, tau: float) -> LinearHead:
    """``head`` with its weights tau-normalised, and no bias: one learnt from frequencies would undo it (our choice)."""
    return _linear_head(tau_normalise(head.weight.detach(), tau), None)


def _linear_head(weight: Tensor, bias: Tensor | None) -> LinearHead:
    head = LinearHead(weight.shape[1], weight.shape[0]).to(weight)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return head


def freeze(module: nn.Module) -> None:
    """Stop the training of ``module``: no gradients, and evaluation mode, so that BatchNorm statistics stay put.

    A later ``train()`` of a module that contains it undoes the mode; call ``train_except`` instead.
    """
    module.requires_grad_(False)
    module.eval()


def train_except(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """``model.train()`` that leaves ``frozen`` modules in evaluation mode: BatchNorm statistics fixed, no dropout."""
    model.train()
    for module in frozen:
        module.eval()
