"""Two stages of training: a representation with metric learning, then a rebalanced classifier on the frozen backbone.

After arXiv 2207.06975, of which the abstract is all that could be read: the metric loss, its weight, the batches and
the kind of rebalancing are our choice. Here are the losses and what the stages ask of the training loop; the loop
itself, heads and samplers live elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import (
    Loss,
    Reduction,
    Stage,
    check_class_target,
    check_counts,
    check_range,
    raise_precision,
)
from raregrade.losses.metric import MetricLoss, MetricName

Classifier = Literal["crt", "balanced_softmax", "tau_norm", "lws"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)


class TwoStageLoss(Loss):
    """Stage 1: CE(z, y) + metric_weight * metric(f / |f|, y). Stage 2: the classifier alone, rebalanced.

    Args:
        class_counts: n_j of the training images, all positive.
        metric: name of the metric loss, see ``raregrade.losses.metric``.
        metric_weight: lambda; 0 leaves plain cross-entropy in stage 1.
        margin: of triplet losses.
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

    def __init__(
        self,
        class_counts: Sequence[int] | Tensor,
        *,
        metric: MetricName = "batch_hard",
        metric_weight: float = 0.5,
        margin: float = 0.2,
        temperature: float = 0.1,
        images_per_class: int = 4,
        classifier: Classifier = "crt",
        tau: float = 1.0,
        classifier_share: float = 0.3,
        reduction: Reduction = "mean",
    ) -> None:
        if classifier not in CLASSIFIERS:
            raise UserError(f"classifier {classifier!r} is unknown; allowed: {', '.join(CLASSIFIERS)}")
        check_range("metric_weight", metric_weight, 0.0, float("inf"), open_high=True)
        check_range("classifier_share", classifier_share, 0.0, 1.0, open_low=True, open_high=True)
        check_range("tau", tau, 0.0, float("inf"), open_high=True)
        counts = check_counts(class_counts)
        super().__init__(len(counts), reduction=reduction)
        self.metric = MetricLoss(metric, len(counts), margin, temperature) if metric_weight > 0 else None
        self.metric_weight, self.classifier, self.tau = metric_weight, classifier, tau
        self.add_constant("adjustment", torch.log(counts / counts.sum()))
        share = 0.0 if classifier == "tau_norm" else classifier_share
        self.stages = (
            _representation_stage(1.0 - share, images_per_class if metric_weight > 0 else None),
            _classifier_stage(classifier, share),
        )

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


def _representation_stage(share: float, images_per_class: int | None) -> Stage:
    sampler: Literal["shuffle", "pk"] = "shuffle" if images_per_class is None else "pk"
    return Stage("representation", share=share, sampler=sampler, images_per_class=images_per_class)


def _classifier_stage(classifier: Classifier, share: float) -> Stage:
    if classifier == "lws":
        return Stage("classifier", share=share, sampler="class_balanced", freeze_backbone=True, head="scale")
    if classifier == "tau_norm":
        return Stage("classifier", share=share, freeze_backbone=True, head="tau_normalise")
    sampler: Literal["shuffle", "class_balanced"] = "class_balanced" if classifier == "crt" else "shuffle"
    return Stage("classifier", share=share, sampler=sampler, freeze_backbone=True, head="new")
