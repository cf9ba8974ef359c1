"""Losses by name: which class a name builds, and how parameters, class counts and label names become its arguments.

``raregrade.config.losses`` holds names, ranges and tasks; no formula and no range is repeated here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from raregrade.config.losses import (
    LOSS_PARAMS,
    AsymmetricParams,
    BalancedSoftmaxParams,
    CDWCEParams,
    DlordinalParams,
    DRWParams,
    EffectiveNumberParams,
    FocalBCEParams,
    FocalParams,
    HBCEParams,
    LDAMParams,
    LMFParams,
    LossParams,
    TwoStageParams,
    WeightedBCEParams,
    WeightedCrossEntropyParams,
)
from raregrade.errors import ConfigError
from raregrade.labels import LabelSpace, LabelStatistics
from raregrade.losses.balanced_softmax import BalancedSoftmaxLoss
from raregrade.losses.base import HeadSpec, Loss, Reduction, check_counts
from raregrade.losses.bce import AsymmetricLoss, BCELoss, FocalBCELoss
from raregrade.losses.cdw_ce import CDWCELoss
from raregrade.losses.coral import CoralLoss
from raregrade.losses.corn import CornLoss
from raregrade.losses.cross_entropy import (
    CrossEntropyLoss,
    complement_frequency_weights,
    effective_number_weights,
    inverse_frequency_weights,
)
from raregrade.losses.dlordinal_adapter import DlordinalLoss
from raregrade.losses.focal import FocalLoss
from raregrade.losses.hbce import HBCELoss
from raregrade.losses.ldam import DRWLoss, LDAMLoss
from raregrade.losses.lmf import LMFLoss
from raregrade.losses.two_stage import TwoStageLoss


@dataclass(frozen=True)
class _Labels:
    """What a loss may know of the training labels."""

    name: str
    space: LabelSpace
    class_counts: Sequence[int] | None
    statistics: LabelStatistics | None

    def counts(self) -> list[int]:
        """Images of each class, all positive. Raises UserError naming the classes that have none."""
        if self.class_counts is None:
            raise ConfigError(f"loss {self.name} needs the class counts of the training images; give class_counts")
        counts = [int(c) for c in self.class_counts]
        if len(counts) != self.space.num_classes:
            raise ConfigError(f"loss {self.name}: {len(counts)} class counts for {self.space.num_classes} classes")
        check_counts(counts, self.space.classes)
        return counts


def create_loss(
    name: str,
    *,
    label_space: LabelSpace,
    class_counts: Sequence[int] | np.ndarray[Any, Any] | None = None,
    statistics: LabelStatistics | None = None,
    **params: Any,
) -> Loss:
    """Build the loss ``name`` for the classes of ``label_space``.

    Args:
        name: a key of ``raregrade.config.LOSS_PARAMS``.
        label_space: task, classes, hierarchy.
        class_counts: [K] training images of each class; by default those of ``statistics``.
        statistics: counts over the training labels, for losses that weigh by them.
        **params: the loss's parameters as under ``losses`` in params.yaml, and ``reduction``.

    Raises:
        ConfigError: unknown name or parameter, a value out of range, or a loss that doesn't fit the task.
        UserError: a class without training images, for a loss that weighs by class counts.
    """
    if name not in LOSS_PARAMS:
        close = difflib.get_close_matches(name, LOSS_PARAMS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"unknown loss {name!r}{hint}; allowed: {', '.join(LOSS_PARAMS)}")
    model = LOSS_PARAMS[name]
    if label_space.task not in model.tasks:
        raise ConfigError(f"loss {name} fits task {' or '.join(model.tasks)}, not {label_space.task}")
    reduction = params.pop("reduction", "mean")
    try:
        checked = model.model_validate(params)
    except ValidationError as err:
        raise ConfigError(_describe(name, model, err)) from err
    if class_counts is None and statistics is not None:
        class_counts = statistics.class_counts
    counts = None if class_counts is None else [int(c) for c in class_counts]
    labels = _Labels(name, label_space, counts, statistics)
    return _BUILDERS[name](labels, checked, reduction)


def _describe(name: str, model: type[LossParams], err: ValidationError) -> str:
    lines = []
    for error in err.errors():
        key = ".".join([name, *(str(part) for part in error["loc"])])
        if error["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown parameter; allowed: {', '.join(model.model_fields) or 'none'}")
        else:
            lines.append(f"{key} = {error['input']!r}: {error['msg']}")
    return "\n".join(lines)


def _ce(labels: _Labels, _: LossParams, reduction: Reduction) -> Loss:
    return CrossEntropyLoss(labels.space.num_classes, reduction=reduction)


def _weighted_ce(labels: _Labels, params: WeightedCrossEntropyParams, reduction: Reduction) -> Loss:
    by = inverse_frequency_weights if params.weighting == "inverse" else complement_frequency_weights
    return CrossEntropyLoss(class_weights=by(labels.counts()), reduction=reduction)


def _effective_number(labels: _Labels, params: EffectiveNumberParams, reduction: Reduction) -> Loss:
    return CrossEntropyLoss(class_weights=effective_number_weights(labels.counts(), params.beta), reduction=reduction)


def _balanced_softmax(labels: _Labels, params: BalancedSoftmaxParams, reduction: Reduction) -> Loss:
    return BalancedSoftmaxLoss(labels.counts(), params.tau, reduction=reduction)


def _focal(labels: _Labels, params: FocalParams, reduction: Reduction) -> Loss:
    weights = inverse_frequency_weights(labels.counts()) if params.weighting == "inverse" else None
    return FocalLoss(params.gamma, weights, num_classes=labels.space.num_classes, reduction=reduction)


def _head(params: LDAMParams) -> tuple[HeadSpec, float]:
    """The head, and the factor that its logits already carry."""
    if params.head == "cosine":
        return HeadSpec("cosine", params.scale), params.scale
    return HeadSpec("linear"), 1.0


def _ldam(labels: _Labels, params: LDAMParams, reduction: Reduction) -> Loss:
    head, logit_scale = _head(params)
    return LDAMLoss(
        labels.counts(), params.max_margin, params.scale, logit_scale=logit_scale, head=head, reduction=reduction
    )


def _drw(labels: _Labels, params: DRWParams, reduction: Reduction) -> Loss:
    head, logit_scale = _head(params)
    return DRWLoss(
        labels.counts(),
        effective_number_weights(labels.counts(), params.beta),
        params.start,
        params.max_margin,
        params.scale,
        logit_scale=logit_scale,
        head=head,
        reduction=reduction,
    )


def _lmf(labels: _Labels, params: LMFParams, reduction: Reduction) -> Loss:
    head, logit_scale = _head(params)
    return LMFLoss(
        labels.counts(),
        params.alpha,
        params.beta,
        params.gamma,
        params.max_margin,
        params.scale,
        params.weighting,
        logit_scale=logit_scale,
        head=head,
        reduction=reduction,
    )


def _cdw_ce(labels: _Labels, params: CDWCEParams, reduction: Reduction) -> Loss:
    return CDWCELoss(
        params.power,
        params.margin,
        params.margin_form,
        num_classes=labels.space.num_classes,
        reduction=reduction,
    )


def _coral(labels: _Labels, _: LossParams, reduction: Reduction) -> Loss:
    return CoralLoss(labels.space.num_classes, reduction=reduction)


def _corn(labels: _Labels, _: LossParams, reduction: Reduction) -> Loss:
    return CornLoss(labels.space.num_classes, reduction=reduction)


def _dlordinal(labels: _Labels, params: DlordinalParams, reduction: Reduction) -> Loss:
    if reduction != "mean":
        raise ConfigError(f"dlordinal's losses have the reduction mean alone, got {reduction!r}")
    return DlordinalLoss(params.loss, labels.space.num_classes, eta=params.eta, alpha=params.alpha)


def _two_stage(labels: _Labels, params: TwoStageParams, reduction: Reduction) -> Loss:
    return TwoStageLoss(labels.counts(), **params.model_dump(), reduction=reduction)


def _bce(labels: _Labels, _: LossParams, reduction: Reduction) -> Loss:
    return BCELoss(labels.space.num_classes, reduction=reduction)


def _weighted_bce(labels: _Labels, params: WeightedBCEParams, reduction: Reduction) -> Loss:
    if labels.statistics is None:
        raise ConfigError("loss weighted_bce needs the statistics of the training labels; give statistics")
    positives = np.asarray(labels.counts(), dtype=np.float64)
    negatives = labels.statistics.known_counts - positives
    weights = np.clip(negatives / positives, 1.0 / params.max_weight, params.max_weight)
    return BCELoss(positive_weights=weights.tolist(), reduction=reduction)


def _focal_bce(labels: _Labels, params: FocalBCEParams, reduction: Reduction) -> Loss:
    return FocalBCELoss(params.gamma, num_labels=labels.space.num_classes, reduction=reduction)


def _asymmetric_bce(labels: _Labels, params: AsymmetricParams, reduction: Reduction) -> Loss:
    return AsymmetricLoss(
        params.gamma_negative,
        params.gamma_positive,
        params.clip,
        num_labels=labels.space.num_classes,
        reduction=reduction,
    )


def _hbce(labels: _Labels, params: HBCEParams, reduction: Reduction) -> Loss:
    space = labels.space
    if not space.edges:
        raise ConfigError("loss hbce needs a hierarchy; give data.hierarchy as [parent, child] pairs, or use bce")
    penalty: Any = params.penalty
    if isinstance(penalty, dict):
        penalty = _penalties_by_index(penalty, space)
    return HBCELoss(
        space.edge_indices,
        penalty,
        params.mode,
        params.scale,
        statistics=labels.statistics,
        num_labels=space.num_classes,
        reduction=reduction,
    )


def _penalties_by_index(nested: dict[str, dict[str, float]], space: LabelSpace) -> dict[tuple[int, int], float]:
    given = {(parent, child): value for parent, children in nested.items() for child, value in children.items()}
    unknown = [edge for edge in given if edge not in space.edges]
    missing = [edge for edge in space.edges if edge not in given]
    if unknown or missing:
        raise ConfigError(
            "hbce.penalty must name every edge of the hierarchy and no other; "
            f"missing: {_arrows(missing)}; not an edge: {_arrows(unknown)}"
        )
    return {indices: given[edge] for edge, indices in zip(space.edges, space.edge_indices, strict=True)}


def _arrows(edges: list[tuple[str, str]]) -> str:
    return ", ".join(f"{parent} -> {child}" for parent, child in edges) or "none"


_BUILDERS: dict[str, Callable[[_Labels, Any, Reduction], Loss]] = {
    "ce": _ce,
    "weighted_ce": _weighted_ce,
    "effective_number": _effective_number,
    "balanced_softmax": _balanced_softmax,
    "focal": _focal,
    "ldam": _ldam,
    "drw": _drw,
    "lmf": _lmf,
    "two_stage": _two_stage,
    "cdw_ce": _cdw_ce,
    "coral": _coral,
    "corn": _corn,
    "dlordinal": _dlordinal,
    "bce": _bce,
    "weighted_bce": _weighted_bce,
    "focal_bce": _focal_bce,
    "asymmetric_bce": _asymmetric_bce,
    "hbce": _hbce,
}
