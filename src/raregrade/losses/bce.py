"""Binary cross-entropies of multilabel tasks: plain, weighted, focal and asymmetric. NaN targets are left out.

The mean of a sample runs over its known labels; ``reduction="mean"`` then runs over the samples that have any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import Loss, check_label_target, raise_precision
from raregrade.losses.definition import MULTILABEL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import FloatRange, Scalar, Space


class BCE(LossDefinition):
    """Binary cross-entropy, all labels alike."""

    tasks = MULTILABEL

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> Loss:
        return BCELoss(labels.num_classes, reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """The mean over samples of the mean over their known labels of ``terms``."""
        known = ~target.isnan()
        p, y = logits.sigmoid(), target.nan_to_num()
        positive, negative = self.terms(p, labels)
        sums = (known * (y * positive + (1 - y) * negative)).sum(1)
        some = known.any(1)
        return (sums[some] / known[some].sum(1)).mean() if some.any() else 0.0 * logits.sum()

    def terms(self, p: Tensor, labels: TrainingLabels) -> tuple[Tensor, Tensor]:
        """What a label costs that is 1, and one that is 0: -log p and -log(1 - p), each [B, K]."""
        del labels
        return -p.log(), -(1 - p).log()


class WeightedBCE(BCE):
    """Binary cross-entropy whose positive term weighs (negatives / positives) of the label, at most ``max_weight``."""

    max_weight: float = Field(100.0, ge=1, le=1e6)
    SEARCH: ClassVar[dict[str, Space]] = {"max_weight": FloatRange(low=2.0, high=100.0, log=True)}

    @property
    def corrects_prior(self) -> bool:
        return self.max_weight > 1

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> BCELoss:
        return BCELoss(positive_weights=self._weights(labels), reduction=reduction)

    def terms(self, p: Tensor, labels: TrainingLabels) -> tuple[Tensor, Tensor]:
        """-w_k log p and -log(1 - p), each [B, K]."""
        return -self._weights(labels) * p.log(), -(1 - p).log()

    def _weights(self, labels: TrainingLabels) -> Tensor:
        known = torch.from_numpy(labels.count_statistics().known_counts).double()
        positives = torch.tensor(labels.counts(), dtype=torch.float64)
        return ((known - positives) / positives).clamp(1.0 / self.max_weight, self.max_weight)


class FocalBCE(BCE):
    """Binary focal loss, arXiv 1708.02002."""

    gamma: float = Field(2.0, ge=0, le=20)
    SEARCH: ClassVar[dict[str, Space]] = {"gamma": FloatRange(low=0.5, high=5.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma": 2.0},)

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> FocalBCELoss:
        return FocalBCELoss(self, num_labels=labels.num_classes, reduction=reduction)

    def terms(self, p: Tensor, labels: TrainingLabels) -> tuple[Tensor, Tensor]:
        """-(1 - p_t)^gamma log p_t, p_t = p for a label of 1 and 1 - p for one of 0; equation 4 of arXiv 1708.02002."""
        del labels
        return -((1 - p) ** self.gamma) * p.log(), -(p**self.gamma) * (1 - p).log()


class AsymmetricBCE(BCE):
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119): negatives focus harder, and easy ones are dropped."""

    gamma_negative: float = Field(4.0, ge=0, le=20)
    gamma_positive: float = Field(1.0, ge=0, le=20)
    clip: float = Field(0.05, ge=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        "gamma_negative": FloatRange(low=0.0, high=6.0),
        "gamma_positive": FloatRange(low=0.0, high=2.0),
        "clip": FloatRange(low=0.0, high=0.2),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma_negative": 4.0, "gamma_positive": 1.0, "clip": 0.05},)

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> AsymmetricBCELoss:
        return AsymmetricBCELoss(self, num_labels=labels.num_classes, reduction=reduction)

    def terms(self, p: Tensor, labels: TrainingLabels) -> tuple[Tensor, Tensor]:
        """-(1 - p)^gamma_positive log p and -q^gamma_negative log(1 - q), q = max(p - clip, 0); arXiv 2009.14119."""
        del labels
        q = (p - self.clip).clamp(min=0)
        return -((1 - p) ** self.gamma_positive) * p.log(), -(q**self.gamma_negative) * (1 - q).log()


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

    def __init__(self, params: FocalBCE, *, num_labels: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(num_labels, output="sigmoid", reduction=reduction)
        self.gamma = params.gamma

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


class AsymmetricBCELoss(Loss):
    """Mean over labels of y (1 - p)^gamma_positive (-log p) + (1 - y) q^gamma_negative (-log(1 - q)).

    q = max(p - clip, 0).
    """

    decision = "threshold"

    def __init__(self, params: AsymmetricBCE, *, num_labels: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(num_labels, output="sigmoid", reduction=reduction)
        self.gamma_negative, self.gamma_positive = params.gamma_negative, params.gamma_positive
        self.clip = params.clip

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
