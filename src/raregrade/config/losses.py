"""The parameters of each loss as they stand under ``losses`` in params.yaml, with ranges and the tasks they fit.

The losses themselves live in ``raregrade.losses``; this module needs no torch, so that a wrong
parameter is refused before anything heavy is imported.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raregrade.config.base import ConfigModel
from raregrade.labels import Task

SINGLE_LABEL: tuple[Task, ...] = ("multiclass", "ordinal")
ORDINAL: tuple[Task, ...] = ("ordinal",)
MULTILABEL: tuple[Task, ...] = ("multilabel",)


class LossParams(ConfigModel):
    """Base of the parameters of a loss. ``tasks`` says which labels the loss fits."""

    tasks: ClassVar[tuple[Task, ...]]


class CrossEntropyParams(LossParams):
    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL


class CDWCEParams(LossParams):
    """Class distance weighted cross-entropy, arXiv 2202.05167; margin of arXiv 2412.01246."""

    tasks: ClassVar[tuple[Task, ...]] = ORDINAL
    power: float = Field(5.0, gt=0, le=20)
    margin: float = Field(0.0, ge=0, lt=1)
    margin_form: Literal["dead_zone", "tighten"] = "dead_zone"


class LMFParams(LossParams):
    """Large margin aware focal loss, arXiv 2212.12741."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    alpha: float = Field(1.5, ge=0)
    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.5, ge=0)
    max_margin: float = Field(0.5, ge=0)
    scale: float = Field(30.0, gt=0)
    weighting: Literal["none", "margin"] = "none"
    head: Literal["cosine", "linear"] = "cosine"


class BCEParams(LossParams):
    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL


LOSS_PARAMS: dict[str, type[LossParams]] = {
    "ce": CrossEntropyParams,
    "cdw_ce": CDWCEParams,
    "lmf": LMFParams,
    "bce": BCEParams,
}
