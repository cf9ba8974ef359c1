"""What each step may read of params.yaml.

A step receives its section and nothing else, so ``section_keys`` is by construction all that a change
of params.yaml can alter in that step: DVC's ``params:`` and the loop items of the Kubeflow pipelines
are made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raregrade.config.data import DataConfig
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig, GateRule, RegisterConfig
from raregrade.config.model import LossChoice, Params, PhantomConfig, Settings
from raregrade.config.training import TrainConfig, check_training
from raregrade.config.tuning import TUNED_SUFFIX, StudyConfig
from raregrade.errors import ConfigError
from raregrade.labels import Task
from raregrade.schema import ConfigModel


class PhantomSection(ConfigModel):
    seed: int
    phantom: PhantomConfig


class PrepareSection(ConfigModel):
    seed: int
    data: DataConfig


class TrainSection(ConfigModel):
    train: TrainConfig
    loss: LossChoice


class TuneSection(ConfigModel):
    """What a study of one loss depends on. ``objective`` is the metric's name, never ``auto``."""

    tune: StudyConfig
    objective: str
    train: TrainConfig
    loss: LossChoice
    task: Task


class EvaluateSection(ConfigModel):
    """``selection_metric`` is the one by which a decision rule is chosen where ``evaluate.decision`` is ``best``."""

    evaluate: EvaluateConfig
    alarms: AlarmConfig
    selection_metric: str


class CompareSection(ConfigModel):
    """``evaluate`` names the decision rules that losses are compared under."""

    compare: CompareConfig
    evaluate: EvaluateConfig
    alarms: AlarmConfig
    selection_metric: str


class RegisterSection(ConfigModel):
    gate: list[GateRule]
    alarms: AlarmConfig
    register_: RegisterConfig


_KEYS: dict[str, tuple[str, ...]] = {
    "phantom": ("seed", "phantom"),
    "prepare": ("seed", "data"),
    "train": ("train", "losses.{loss}"),
    "tune": (*(f"tune.{name}" for name in StudyConfig.model_fields), "train", "losses.{loss}", "data.task"),
    "train_tuned": ("train", "losses.{loss}"),
    "evaluate": ("evaluate", "alarms", "train.selection_metric", "data.task"),
    "compare": ("compare", "evaluate", "alarms", "tune.losses", "train.selection_metric", "data.task"),
    "register": ("gate", "alarms", "register"),
}


def section_keys(step: str, loss: str | None = None) -> tuple[str, ...]:
    """The keys of params.yaml that ``step`` reads; ``loss`` replaces the placeholder of steps run per loss."""
    return tuple(key.format(loss=loss) if loss else key for key in _keys_of(step))


def section(params: Settings, step: str, loss: str | None = None) -> Any:
    """The section of ``step`` as its typed object.

    Raises:
        ConfigError: unknown step, a loss that params.yaml does not define, or one that its training settings don't fit.
    """
    _keys_of(step)
    make: dict[str, Callable[[], ConfigModel]] = {
        "phantom": lambda: PhantomSection(seed=params.seed, phantom=params.phantom),
        "prepare": lambda: PrepareSection(seed=params.seed, data=params.data),
        "train": lambda: TrainSection(train=params.train, loss=_defined(params, loss)),
        "tune": lambda: _tune_section(params, loss),
        "train_tuned": lambda: TrainSection(train=params.train, loss=_defined(params, loss)),
        "evaluate": lambda: EvaluateSection(
            evaluate=params.evaluate, alarms=params.alarms, selection_metric=params.selection_metric
        ),
        "compare": lambda: _compare_section(params),
        "register": lambda: RegisterSection(gate=params.gate, alarms=params.alarms, register_=params.register_),
    }
    return make[step]()


def _tune_section(params: Settings, loss: str | None) -> TuneSection:
    objective = params.selection_metric if params.tune.objective == "auto" else params.tune.objective
    return TuneSection(
        tune=params.tune.study(),
        objective=objective,
        train=params.train,
        loss=_defined(params, loss),
        task=params.data.task,
    )


def _compare_section(params: Settings) -> CompareSection:
    """Tuned losses are compared beside those that ``compare.losses`` names."""
    tuned = [name + TUNED_SUFFIX for name in params.tune.losses]
    compared = params.compare.model_copy(update={"losses": [*params.compare.losses, *tuned]})
    return CompareSection(
        compare=compared,
        evaluate=params.evaluate,
        alarms=params.alarms,
        selection_metric=params.selection_metric,
    )


def _defined(params: Settings, loss: str | None) -> LossChoice:
    if not isinstance(params, Params):
        raise TypeError("a step that trains a loss needs the parameters as load_params reads them")
    if loss not in params.losses:
        raise ConfigError(f"loss {loss!r} is not defined under losses; defined: {', '.join(params.losses)}")
    check_training(params.train, params.losses[loss])
    return params.losses[loss]


def _keys_of(step: str) -> tuple[str, ...]:
    if step not in _KEYS:
        raise ConfigError(f"unknown step {step!r}; allowed: {', '.join(_KEYS)}")
    return _KEYS[step]
