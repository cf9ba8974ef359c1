"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from raregrade.config import TrainConfig
from raregrade.models.backbone import Classifier


def create_optimizer(model: Classifier, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of ``config``; biases, normalisation layers and other vectors are not decayed.

    The backbone has groups of its own, with ``backbone_lr`` times the learning rate of the rest.
    """
    backbone = {id(p) for p in model.backbone.parameters()}
    groups: list[dict[str, Any]] = []
    for in_backbone, factor in ((True, config.backbone_lr), (False, 1.0)):
        trained = [p for p in model.parameters() if p.requires_grad and (id(p) in backbone) == in_backbone]
        groups += [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay, "factor": factor},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "factor": factor},
        ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, fused=True)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, epochs: int, scale: float = 1.0) -> float:
    """The learning rate of ``step``, counted from 0 over the ``epochs`` of the schedule.

    Linear warm-up, then a cosine to ``lr_min``, a constant, or steps; ``scale`` is what a plateau schedule has come to.
    A stage that has a part of ``config.epochs`` warms up for that part of the warm-up. But for ``scale`` a function of
    the step alone, so a resumed run continues on the same curve.
    """
    total = epochs * steps_per_epoch
    part = epochs / config.epochs
    warmup = min(round(config.warmup_epochs * part * steps_per_epoch), total - 1)
    if step < warmup:
        return config.lr * scale * (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        return config.lr_min + (config.lr - config.lr_min) * left
    if config.schedule == "step":
        scale = config.lr_factor ** (step // steps_per_epoch // config.lr_epochs)
    return max(config.lr_min, config.lr * scale)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """``lr`` for the head, and the backbone's multiple of it for the backbone."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


@dataclass
class Plateau:
    """Lowers the learning rate when a metric no longer rises, by the rules of torch's ReduceLROnPlateau.

    Attributes:
        scale: what the learning rate is multiplied by.
        best: the best value so far, NaN before the first.
        waited: epochs since then.
    """

    scale: float = 1.0
    best: float = math.nan
    waited: int = 0

    def update(self, value: float, config: TrainConfig, *, lower_is_better: bool) -> bool:
        """Take in the value of an epoch; True where the learning rate falls because of it."""
        gain = self.best - value if lower_is_better else value - self.best
        if math.isnan(self.best) or gain > config.lr_threshold * abs(self.best):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if config.schedule != "plateau" or self.waited <= config.lr_epochs:
            return False
        self.waited = 0
        falls = config.lr * self.scale > config.lr_min
        self.scale *= config.lr_factor
        return falls
