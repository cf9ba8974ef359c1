"""LDAM: label-distribution-aware margins (Cao et al., arXiv 1906.07413), and its deferred re-weighting (DRW)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from raregrade.losses.base import Loss, check_class_target, check_class_weights, check_counts, raise_precision
from raregrade.losses.cross_entropy import effective_number_weights
from raregrade.losses.definition import (
    SINGLE_LABEL,
    HeadSpec,
    LossDefinition,
    Reduction,
    TrainingLabels,
    TrainingSettings,
)
from raregrade.schema import Choice, FloatRange, Scalar, Space


class MarginDefinition(LossDefinition):
    """The parameters that LDAM shares with the losses made from it.

    ``max_margin`` is the margin of the rarest class, ``scale`` is s. A cosine head returns s cos(w, f), so the loss
    multiplies the margin by s and doesn't scale the logits again.
    """

    tasks = SINGLE_LABEL
    max_margin: float = Field(0.5, ge=0, le=10)
    scale: float = Field(30.0, gt=0, le=1000)
    head: Literal["cosine", "linear"] = "cosine"

    @property
    def head_spec(self) -> HeadSpec:
        return HeadSpec("cosine", self.scale) if self.head == "cosine" else HeadSpec("linear")

    def margin_reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """-log softmax(s (z - m_y onehot(y)))_y of each sample [B], m_j ~ n_j^(-1/4); arXiv 1906.07413."""
        n = torch.tensor(labels.counts(), dtype=torch.float64)
        margins = self.max_margin * (n / n.min()) ** -0.25
        own = functional.one_hot(target, len(n))
        z = logits / self.scale if self.head == "cosine" else logits
        log_p = (self.scale * (z - margins * own)).log_softmax(1)
        return -(log_p * own).sum(1)


class LDAM(MarginDefinition):
    """Label-distribution-aware margins, arXiv 1906.07413."""

    SEARCH: ClassVar[dict[str, Space]] = {
        "max_margin": FloatRange(low=0.1, high=0.8),
        "scale": FloatRange(low=1.0, high=30.0, log=True),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"max_margin": 0.5, "scale": 30.0},)

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> LDAMLoss:
        return LDAMLoss(self, labels.counts(), reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """The mean of ``margin_reference``."""
        return self.margin_reference(logits, target, labels).mean()


class DRW(MarginDefinition):
    """LDAM with effective-number weights from ``start`` of the epochs on (deferred re-weighting)."""

    beta: float = Field(0.9999, ge=0, lt=1)
    start: float = Field(0.8, ge=0, le=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        **LDAM.SEARCH,
        "beta": Choice(choices=(0.9, 0.99, 0.999, 0.9999)),
        "start": FloatRange(low=0.5, high=0.9),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"max_margin": 0.5, "scale": 30.0, "beta": 0.9999, "start": 0.8},)

    @property
    def corrects_prior(self) -> bool:
        return self.beta > 0

    def conflicts(self, key: str, train: TrainingSettings) -> list[str]:
        if self.weighs_in(train.epochs - 1, train.epochs):
            return []
        last = f"{key}.start to {1 - 1 / train.epochs:.3g} at most" if train.epochs > 1 else f"{key}.start=0"
        return [
            f"{key}.start = {self.start:g}: with train.epochs = {train.epochs} no epoch begins after so much of the "
            f"training, and classes would never be weighted. Set {last}, or train longer"
        ]

    def weighs_in(self, epoch: int, epochs: int) -> bool:
        """Whether classes are weighted in ``epoch``, counted from 0."""
        return epoch >= self.start * epochs

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> DRWLoss:
        return DRWLoss(self, labels.counts(), reduction=reduction)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """sum_b w_y LDAM_b / sum_b w_y with w_j = (1 - beta) / (1 - beta^n_j), after ``start`` of the epochs."""
        n = torch.tensor(labels.counts(), dtype=torch.float64)
        w = ((1 - self.beta) / (1 - self.beta**n))[target]
        return (w * self.margin_reference(logits, target, labels)).sum() / w.sum()


def ldam_margins(class_counts: Sequence[int] | Tensor, max_margin: float = 0.5) -> Tensor:
    """m_j = max_margin * n_j^(-1/4) / max_k n_k^(-1/4), float64 [C]: the rarest class gets ``max_margin``."""
    raw = check_counts(class_counts).pow(-0.25)
    return max_margin * raw / raw.max()


class LDAMLoss(Loss):
    """CE(s (z - m_y onehot(y)), y): the true class must win by a margin, the larger the rarer it is.

    Args:
        params: margin, scale and head; logits of a cosine head carry the scale already.
        class_counts: n_j of the training images, all positive.
        class_weights: [C] or None; ``mean`` divides by the sum of the samples' weights, as the authors do.
    """

    def __init__(
        self,
        params: MarginDefinition,
        class_counts: Sequence[int] | Tensor,
        class_weights: Sequence[float] | Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        margins = ldam_margins(class_counts, params.max_margin)
        super().__init__(len(margins), head=params.head_spec, reduction=reduction)
        self.factor = 1.0 if params.head == "cosine" else params.scale
        self.add_constant("class_weights", check_class_weights(class_weights, len(margins)))
        # Row y is -s m_y at column y and 0 elsewhere: one gather of rows replaces a one-hot, a product and a sum.
        self.add_constant("shift", torch.diag(-params.scale * margins))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.optional_constant("class_weights", logits.dtype)
        return functional.cross_entropy(self.shifted(logits, target), target, weights, reduction=self.reduction)

    def shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        """s (z - m_y onehot(y)), [B, C], in the dtype of ``logits``."""
        rows = self.constant("shift", logits.dtype).index_select(0, target)
        return torch.add(rows, logits, alpha=self.factor)


class DRWLoss(LDAMLoss):
    """LDAM that weighs all classes alike until ``start`` of the epochs has passed, then by effective numbers."""

    def __init__(self, params: DRW, class_counts: Sequence[int] | Tensor, *, reduction: Reduction = "mean") -> None:
        ones = torch.ones(len(class_counts), dtype=torch.float64)
        super().__init__(params, class_counts, ones, reduction=reduction)
        self.params = params
        self.add_constant("equal_weights", ones)
        self.add_constant("deferred_weights", effective_number_weights(class_counts, params.beta))

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Weights for ``epoch`` (from 0) of ``epochs``."""
        current = "deferred_weights" if self.params.weighs_in(epoch, epochs) else "equal_weights"
        self.class_weights = self.constant(current, torch.float32)
        self.class_weights_float64 = self.constant(current, torch.float64)
