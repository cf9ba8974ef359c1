"""Two stages of training: a representation with metric learning, then a rebalanced classifier on the frozen backbone.

After arXiv 2207.06975, of which the abstract is all that could be read: the metric loss, its weight, the batches and
the kind of rebalancing are our choice. Here are the losses and what the stages ask of the training loop; the loop
itself, heads and samplers live elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import Loss, check_class_target, check_counts, raise_precision
from raregrade.losses.definition import (
    SINGLE_LABEL,
    LossDefinition,
    Reduction,
    Stage,
    TrainingLabels,
    TrainingSettings,
)
from raregrade.losses.metric import MetricLoss, MetricName
from raregrade.schema import FloatRange, Space


class TwoStage(LossDefinition):
    """Representation with a metric loss, then a rebalanced head on the frozen backbone, after arXiv 2207.06975.

    Attributes:
        metric: the metric loss, see ``raregrade.losses.metric``.
        metric_weight: lambda; 0 leaves plain cross-entropy in stage 1.
        margin: of triplet losses, in distances of unit vectors.
        temperature: of ``supcon``.
        images_per_class: the least images of a class in a batch of stage 1. A batch has as many classes as this allows,
            which share its images evenly.
        classifier: how stage 2 rebalances (arXiv 1910.09217). ``crt``: a new head, class-balanced batches.
            ``balanced_softmax``: a new head, natural batches, log-prior in the loss. ``lws``: the head is kept and a
            factor for each class is learnt on class-balanced batches. ``tau_norm``: no training, the head's weights
            are divided by their length to the power ``tau``.
        tau: of ``tau_norm``.
        classifier_share: part of the epochs that stage 2 gets; ``tau_norm`` needs none.
    """

    tasks = SINGLE_LABEL
    metric: MetricName = "batch_hard"
    metric_weight: float = Field(0.5, ge=0, le=100)
    margin: float = Field(0.2, ge=0, le=2)
    temperature: float = Field(0.1, gt=0, le=10)
    images_per_class: int = Field(4, ge=2, le=1024)
    classifier: Literal["crt", "balanced_softmax", "tau_norm", "lws"] = "crt"
    tau: float = Field(1.0, ge=0, le=2)
    classifier_share: float = Field(0.3, gt=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        "metric_weight": FloatRange(low=0.05, high=5.0, log=True),
        "margin": FloatRange(low=0.05, high=1.0),
        "temperature": FloatRange(low=0.05, high=1.0, log=True),
    }

    def search(self) -> dict[str, Space]:
        unused = {"supcon": ["margin"], "npairs": ["margin", "temperature"]}.get(self.metric, ["temperature"])
        return {name: space for name, space in self.SEARCH.items() if name not in unused}

    @property
    def corrects_prior(self) -> bool:
        return True

    @property
    def stages(self) -> tuple[Stage, ...]:
        share = 0.0 if self.classifier == "tau_norm" else self.classifier_share
        first = Stage("representation", 1.0 - share)
        if self.metric_weight > 0:
            first = Stage("representation", 1.0 - share, "pk", self.images_per_class)
        sampler: Literal["class_balanced", "shuffle"] = (
            "class_balanced" if self.classifier in ("crt", "lws") else "shuffle"
        )
        head: Literal["scale", "tau_normalise", "new"] = (
            "scale" if self.classifier == "lws" else "tau_normalise" if self.classifier == "tau_norm" else "new"
        )
        return (first, Stage("classifier", share, sampler, freeze_backbone=True, head=head, tau=self.tau))

    def conflicts(self, key: str, train: TrainingSettings) -> list[str]:
        images = train.batch_size // train.accumulate
        if self.metric_weight == 0 or images >= 2 * self.images_per_class:
            return []
        passes = f" in {train.accumulate} forward passes" if train.accumulate > 1 else ""
        most = f"Set {key}.images_per_class={images // 2} or less, or" if images >= 4 else "Set"
        return [
            f"{key}.images_per_class = {self.images_per_class}: train.batch_size = {train.batch_size}{passes} doesn't "
            f"hold two classes of so many images, which a metric loss compares. {most} "
            f"train.batch_size={2 * self.images_per_class * train.accumulate} or more"
        ]

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> TwoStageLoss:
        return TwoStageLoss(self, labels.counts(), reduction=reduction)


class TwoStageLoss(Loss):
    """Stage 1: CE(z, y) + metric_weight * metric(f / |f|, y). Stage 2: the classifier alone, rebalanced.

    Args:
        params: metric loss, classifier and how training is shared out between them.
        class_counts: n_j of the training images, all positive.
    """

    def __init__(
        self, params: TwoStage, class_counts: Sequence[int] | Tensor, *, reduction: Reduction = "mean"
    ) -> None:
        counts = check_counts(class_counts)
        super().__init__(len(counts), reduction=reduction)
        self.stages = params.stages
        self.metric_weight, self.classifier = params.metric_weight, params.classifier
        self.metric = None
        if params.metric_weight > 0:
            self.metric = MetricLoss(params.metric, len(counts), params.margin, params.temperature)
        self.add_constant("adjustment", torch.log(counts / counts.sum()))

    @property
    def needs_features(self) -> bool:
        """Whether ``forward`` needs the features in the current stage."""
        return self.stage == 0 and self.metric is not None

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B], in stage 1 ``features`` [B, D] -> scalar, or [B] for ``none``.

        The metric term is a scalar of the whole batch; under ``none`` each sample gets it, under ``sum`` it counts
        B times, so that ``mean``, ``sum`` and ``none`` agree.
        """
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        if self.stage == 1 and self.classifier == "balanced_softmax":
            logits = logits + self.constant("adjustment", logits.dtype)
        loss: Tensor = functional.cross_entropy(logits, target, reduction=self.reduction)
        if self.stage == 1 or self.metric is None:
            return loss
        if features is None:
            raise UserError("the first stage of two_stage needs the features [B, D] beside the logits")
        term: Tensor = self.metric_weight * self.metric(features, target)
        return loss + (term * len(target) if self.reduction == "sum" else term)
