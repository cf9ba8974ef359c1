"""What each step may read of params.yaml.

A step receives its section and nothing else, so ``section_keys`` is by construction all that a change
of params.yaml can alter in that step: DVC's ``params:`` and the loop items of the Kubeflow pipelines
are made from it.
"""

from __future__ import annotations

from typing import Any

from raregrade.config.base import ConfigModel
from raregrade.config.model import (
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    GateRule,
    LossChoice,
    Params,
    PhantomConfig,
    RegisterConfig,
    TrainConfig,
)
from raregrade.errors import ConfigError


class PhantomSection(ConfigModel):
    seed: int
    phantom: PhantomConfig


class PrepareSection(ConfigModel):
    seed: int
    data: DataConfig


class TrainSection(ConfigModel):
    train: TrainConfig
    loss: LossChoice


class EvaluateSection(ConfigModel):
    evaluate: EvaluateConfig


class CompareSection(ConfigModel):
    compare: CompareConfig
    selection_metric: str


class RegisterSection(ConfigModel):
    gate: list[GateRule]
    register_: RegisterConfig


_KEYS: dict[str, tuple[str, ...]] = {
    "phantom": ("seed", "phantom"),
    "prepare": ("seed", "data"),
    "train": ("train", "losses.{loss}"),
    "evaluate": ("evaluate",),
    "compare": ("compare", "train.selection_metric", "data.task"),
    "register": ("gate", "register"),
}


def section_keys(step: str, loss: str | None = None) -> tuple[str, ...]:
    """The keys of params.yaml that ``step`` reads; ``loss`` replaces the placeholder of steps run per loss."""
    return tuple(key.format(loss=loss) if loss else key for key in _keys_of(step))


def section(params: Params, step: str, loss: str | None = None) -> Any:
    """The section of ``step`` as its typed object.

    Raises:
        ConfigError: unknown step, or a loss that params.yaml does not define.
    """
    _keys_of(step)
    if step == "phantom":
        return PhantomSection(seed=params.seed, phantom=params.phantom)
    if step == "prepare":
        return PrepareSection(seed=params.seed, data=params.data)
    if step == "train":
        if loss not in params.losses:
            raise ConfigError(f"loss {loss!r} is not defined under losses; defined: {', '.join(params.losses)}")
        return TrainSection(train=params.train, loss=params.losses[loss])
    if step == "evaluate":
        return EvaluateSection(evaluate=params.evaluate)
    if step == "compare":
        return CompareSection(compare=params.compare, selection_metric=params.selection_metric)
    return RegisterSection(gate=params.gate, register_=params.register_)


def _keys_of(step: str) -> tuple[str, ...]:
    if step not in _KEYS:
        raise ConfigError(f"unknown step {step!r}; allowed: {', '.join(_KEYS)}")
    return _KEYS[step]
