"""The section ``train`` of params.yaml, and what of it contradicts itself or the loss that is to be trained.

Everything that can be known to go wrong, or to have no effect, is refused here: before data are read and torch is
imported. What only the machine, the network or the data can tell is found out by ``raregrade.training``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from raregrade.errors import ConfigError
from raregrade.schema import ConfigModel

if TYPE_CHECKING:
    from raregrade.config.model import LossChoice

# Besides ``lr_epochs``: the first, which is the best so far, the one that exhausts patience, and one at the lower rate.
_PLATEAU_EPOCHS = 3


class AugmentConfig(ConfigModel):
    """Random changes of a training image, drawn anew for each image and epoch."""

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotate_degrees: float = Field(10.0, ge=0, le=180)
    translate: float = Field(0.05, ge=0, le=0.5)
    scale: float = Field(0.1, ge=0, lt=1)
    brightness: float = Field(0.1, ge=0, le=1)
    contrast: float = Field(0.1, ge=0, lt=1)


class TrainConfig(ConfigModel):
    """Backbone and training, the same for every loss.

    ``batch_size`` is what one update sees, over all processes; ``accumulate`` splits a process's part of it into
    that many forward passes, for a device with too little memory. ``ema`` is the decay of an average of the weights,
    which is then what is validated and kept. ``backbone_lr`` multiplies ``lr`` for the backbone. ``freeze`` names
    modules of the backbone (``layer1``) that keep their weights. ``warmup_epochs`` is 1 by default, and 0.5 in a run of
    one epoch. The step and plateau schedules multiply the learning rate by ``lr_factor``: every ``lr_epochs`` epochs,
    or after more than that many without a better selection metric, relative improvements below ``lr_threshold`` not
    counting. ``early_stopping`` ends a stage after that many epochs without a better one.
    """

    backbone: str = Field("resnet18", min_length=1)
    pretrained: bool = False
    weights: str = ""
    stem: Literal["timm", "small"] = "timm"
    aux_weight: float = Field(0.4, ge=0, le=1)
    freeze: list[str] = Field(default_factory=list)
    dropout: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(20, ge=1, le=10_000)
    early_stopping: int | None = Field(None, ge=1, le=10_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    accumulate: int = Field(1, ge=1, le=1024)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10)
    backbone_lr: float = Field(1.0, ge=0, le=10)
    weight_decay: float = Field(0.05, ge=0, le=10)
    schedule: Literal["cosine", "constant", "step", "plateau"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)
    lr_factor: float = Field(0.1, gt=0, lt=1)
    lr_epochs: int = Field(30, ge=1, le=10_000)
    lr_threshold: float = Field(1e-4, ge=0, lt=1)
    lr_min: float = Field(0.0, ge=0, le=10)
    gradient_clip: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    sampler: Literal["shuffle", "class_balanced"] = "shuffle"
    selection_metric: Literal["auto", "qwk", "mae", "accuracy", "balanced_accuracy", "macro_f1", "auroc"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    deterministic: bool = False
    threads: int = Field(2, ge=1, le=1024)
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="before")
    @classmethod
    def _shorter_warmup_of_one_epoch(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("epochs") == 1 and "warmup_epochs" not in value:
            return {**value, "warmup_epochs": 0.5}
        return value

    @model_validator(mode="after")
    def _settings_fit_together(self) -> TrainConfig:
        problems = [*self._batch_problems(), *self._rate_problems(), *self._patience_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _batch_problems(self) -> Iterable[str]:
        if self.batch_size % self.accumulate:
            fitting = max(self.accumulate, round(self.batch_size / self.accumulate) * self.accumulate)
            yield (
                f"train.accumulate = {self.accumulate}: train.batch_size = {self.batch_size} doesn't divide into so "
                f"many equal forward passes. Set train.batch_size={fitting}, or another train.accumulate"
            )

    def _rate_problems(self) -> Iterable[str]:
        if self.lr_min > self.lr:
            yield (
                f"train.lr_min = {self.lr_min:g}: is above train.lr = {self.lr:g}, which the schedule falls from. "
                "Lower train.lr_min"
            )
        elif self.lr_min == self.lr and self.schedule != "constant":
            yield (
                f"train.lr_min = {self.lr_min:g}: is train.lr, so the {self.schedule} schedule has nothing to lower. "
                "Lower train.lr_min, or set train.schedule=constant"
            )
        if self.warmup_epochs >= self.epochs:
            yield (
                f"train.warmup_epochs = {self.warmup_epochs:g}: the warm-up would not end within train.epochs = "
                f"{self.epochs}. Set train.warmup_epochs below train.epochs"
            )
        if not self.schedule_acts(self.epochs):
            yield (
                f"train.lr_epochs = {self.lr_epochs}: the {self.schedule} schedule would never lower the learning rate "
                f"within train.epochs = {self.epochs}. {self._schedule_advice(self.epochs)}"
            )

    def _patience_problems(self) -> Iterable[str]:
        if self.early_stopping is None:
            return
        given = f"train.early_stopping = {self.early_stopping}:"
        # The first epoch is the best so far, and stopping after the last stops nothing.
        if self.early_stopping > self.epochs - 2:
            at_most = f"{self.epochs - 2} at most, or null" if self.epochs > 2 else "null"
            yield (
                f"{given} can never end a training of train.epochs = {self.epochs} early. "
                f"Set train.early_stopping to {at_most}"
            )
        elif self.schedule == "plateau" and self.early_stopping <= self.lr_epochs + 1:
            yield (
                f"{given} ends the training before the plateau schedule, which waits for more than train.lr_epochs = "
                f"{self.lr_epochs} epochs, can lower the learning rate. Set train.early_stopping to "
                f"{self.lr_epochs + 2} or more, or lower train.lr_epochs"
            )

    def schedule_acts(self, epochs: int) -> bool:
        """Whether a step or plateau schedule can lower the learning rate in a stage of ``epochs`` epochs."""
        if self.schedule == "step":
            return self.lr_epochs < epochs
        return self.schedule != "plateau" or self.lr_epochs + _PLATEAU_EPOCHS <= epochs

    def _schedule_advice(self, epochs: int) -> str:
        most = epochs - (1 if self.schedule == "step" else _PLATEAU_EPOCHS)
        return f"Set train.lr_epochs to {most} at most" if most > 0 else "Set train.schedule=constant, or train longer"


def share_epochs(epochs: int, shares: Sequence[float]) -> list[int]:
    """Deal ``epochs`` to stages by their ``shares``: one at least to each that has a share, together all of them.

    Raises:
        ConfigError: fewer epochs than stages that train.
    """
    trained = sum(share > 0 for share in shares)
    if epochs < trained:
        raise ConfigError(
            f"train.epochs = {epochs}: training in {trained} stages takes at least one epoch for each. "
            f"Set train.epochs={trained} or more"
        )
    dealt: list[int] = []
    for share in shares:
        left = epochs - sum(dealt)
        trained -= share > 0
        if share <= 0:
            dealt.append(0)
        elif trained == 0:
            dealt.append(left)
        else:
            dealt.append(min(max(1, round(epochs * share / sum(shares))), left - trained))
    return dealt


def loss_problems(train: TrainConfig, loss: LossChoice) -> list[str]:
    """What of ``train`` contradicts ``loss``, a message each, which begins with the key to change."""
    problems = []
    if train.sampler == "class_balanced" and loss.params.corrects_prior:
        problems.append(
            f"train.sampler = class_balanced: shows every class equally often, and the loss {loss.name} makes up for "
            "rare classes itself: together they correct twice. Set train.sampler=shuffle, or leave out one of the two"
        )
    problems += loss.params.conflicts(f"losses.{loss.name}", train)
    try:
        longest = max(share_epochs(train.epochs, loss.params.stage_shares))
    except ConfigError as err:
        return [*problems, f"{err}, or leave out the loss {loss.name}"]
    if not train.schedule_acts(longest):
        problems.append(
            f"train.lr_epochs = {train.lr_epochs}: the {train.schedule} schedule would never lower the learning rate "
            f"of {loss.name}, whose longest stage has {longest} of the {train.epochs} epochs. Lower train.lr_epochs"
        )
    return problems


def check_training(train: TrainConfig, loss: LossChoice) -> None:
    """Raise ConfigError where ``loss_problems`` finds any."""
    problems = loss_problems(train, loss)
    if problems:
        raise ConfigError("\n".join(problems))
