"""Losses by the names that params.yaml knows. The file of a loss is imported when its name is looked up."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from raregrade.errors import ConfigError, UserError
from raregrade.labels import LabelSpace, LabelStatistics
from raregrade.losses.definition import LossDefinition, Reduction, TrainingLabels

if TYPE_CHECKING:
    from raregrade.losses.base import Loss

# Where the definition of each loss stands: ``module:class``.
PLACES: dict[str, str] = {
    "ce": "raregrade.losses.cross_entropy:CrossEntropy",
    "weighted_ce": "raregrade.losses.cross_entropy:WeightedCrossEntropy",
    "effective_number": "raregrade.losses.cross_entropy:EffectiveNumber",
    "balanced_softmax": "raregrade.losses.balanced_softmax:BalancedSoftmax",
    "focal": "raregrade.losses.focal:Focal",
    "ldam": "raregrade.losses.ldam:LDAM",
    "drw": "raregrade.losses.ldam:DRW",
    "lmf": "raregrade.losses.lmf:LMF",
    "two_stage": "raregrade.losses.two_stage:TwoStage",
    "cdw_ce": "raregrade.losses.cdw_ce:CDWCE",
    "coral": "raregrade.losses.coral:Coral",
    "corn": "raregrade.losses.corn:Corn",
    "dlordinal": "raregrade.losses.dlordinal_adapter:Dlordinal",
    "bce": "raregrade.losses.bce:BCE",
    "weighted_bce": "raregrade.losses.bce:WeightedBCE",
    "focal_bce": "raregrade.losses.bce:FocalBCE",
    "asymmetric_bce": "raregrade.losses.bce:AsymmetricBCE",
    "hbce": "raregrade.losses.hbce:HBCE",
}


class _Losses(Mapping[str, type[LossDefinition]]):
    """The definitions by name. Only a look-up imports; iteration and ``in`` don't."""

    def __getitem__(self, name: str) -> type[LossDefinition]:
        module, _, definition = PLACES[name].partition(":")
        found: type[LossDefinition] = getattr(import_module(module), definition)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)

    def __contains__(self, name: object) -> bool:
        return name in PLACES


LOSSES: Mapping[str, type[LossDefinition]] = _Losses()


def create_loss(
    name: str,
    *,
    label_space: LabelSpace,
    class_counts: Sequence[int] | np.ndarray[Any, Any] | None = None,
    statistics: LabelStatistics | None = None,
    reduction: Reduction = "mean",
    **params: Any,
) -> Loss:
    """Build the loss ``name`` for the classes of ``label_space``.

    Args:
        name: a key of ``LOSSES``.
        label_space: task, classes, hierarchy.
        class_counts: [K] training images of each class; by default those of ``statistics``.
        statistics: counts over the training labels, for losses that weigh by them.
        reduction: ``mean``, ``sum`` or ``none``.
        **params: the loss's parameters as under ``losses`` in params.yaml.

    Raises:
        ConfigError: unknown name or parameter, a value out of range, or a loss that doesn't fit the task.
        UserError: a class without training images, for a loss that weighs by class counts.
    """
    if name not in LOSSES:
        close = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"unknown loss {name!r}{hint}; allowed: {', '.join(LOSSES)}")
    definition = LOSSES[name].checked(params, name)
    if label_space.task not in definition.tasks:
        raise ConfigError(f"loss {name} fits task {' or '.join(definition.tasks)}, not {label_space.task}")
    if class_counts is None and statistics is not None:
        class_counts = statistics.class_counts
    counts = None if class_counts is None else [int(count) for count in class_counts]
    try:
        return definition.build(TrainingLabels(label_space, counts, statistics), reduction)
    except UserError as err:
        raise type(err)(f"loss {name}: {err}") from err
