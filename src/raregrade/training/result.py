"""What a training run comes to: its result, where it stands on the way, and the error of one that diverged."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from raregrade.errors import RaregradeError
from raregrade.labels import LabelStatistics
from raregrade.losses.base import Loss


class TrainingDivergedError(RaregradeError):
    """The loss became NaN or infinite."""


@dataclass
class FitResult:
    """The best weights and what a model card says about them.

    Attributes:
        weights: state dict of the epoch with the best validation metric.
        history: one row an epoch.
        best_epoch: counted from 1.
        initial_weights: ``source`` and ``sha256`` of the weights that the backbone began with, None for random ones.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int
    best_value: float
    loss: Loss
    statistics: LabelStatistics
    mean: list[float]
    std: list[float]
    initial_weights: dict[str, str] | None


@dataclass
class RunProgress:
    """Where a run stands; all of it goes into a checkpoint."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    step_losses: list[Tensor] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = float("nan")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    plateau: dict[str, float] = field(default_factory=dict)
