"""What a study searches: what the loss declares, narrowed, fixed or widened by ``tune.space``.

Names of loss parameters stand alone (``alpha``), those of training parameters begin with ``train.``. Every value that a
search can reach is checked here as if it stood in params.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError

from raregrade.config.training import loss_problems
from raregrade.config.tuning import TRAIN_PREFIX, SpaceSetting, StudyConfig
from raregrade.errors import ConfigError
from raregrade.schema import Choice, ConfigModel, FloatRange, IntRange, Scalar, Space, contains

if TYPE_CHECKING:
    from raregrade.config.model import LossChoice
    from raregrade.config.training import TrainConfig

Model = TypeVar("Model", bound=ConfigModel)

# What can be searched of the training, with the range where params.yaml gives none.
TRAIN_SEARCH: dict[str, Space] = {
    "lr": FloatRange(low=1e-4, high=1e-2, log=True),
    "weight_decay": FloatRange(low=1e-4, high=0.5, log=True),
    "batch_size": Choice(choices=(16, 32, 64, 128)),
    "dropout": FloatRange(low=0.0, high=0.5),
    "backbone_lr": FloatRange(low=0.05, high=1.0, log=True),
    "warmup_epochs": FloatRange(low=0.0, high=5.0),
}
# What is searched for a loss that has nothing of its own to tune, and always for the baseline.
_TRAIN_DEFAULT = ("lr", "weight_decay")


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what ``tune.space`` fixes; both by name."""

    spaces: dict[str, Space]
    fixed: dict[str, Scalar]

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether ``values`` gives every searched parameter a value within its range."""
        return all(name in values and contains(space, values[name]) for name, space in self.spaces.items())


def search_space(config: StudyConfig, loss: LossChoice, train: TrainConfig) -> SearchSpace:
    """The search space of ``loss``: its own parameters, and the training's that ``tune.space.train`` names.

    A loss that has nothing of its own to tune is tuned by learning rate and weight decay.

    Raises:
        ConfigError: an unknown parameter, an inverted range, or one outside the allowed values; names each.
    """
    return _checked(config, loss, train, always_train=False)


def baseline_space(config: StudyConfig, baseline: LossChoice, train: TrainConfig) -> SearchSpace:
    """That of the baseline: learning rate and weight decay, and what ``tune.space.train`` names besides."""
    return _checked(config, baseline, train, always_train=True)


def default_values(space: SearchSpace, loss: LossChoice, train: TrainConfig) -> dict[str, Scalar]:
    """The searched parameters as they stand in params.yaml; those that hold no plain value are left out."""
    current = {**loss.params.model_dump(), **{TRAIN_PREFIX + k: v for k, v in train.model_dump().items()}}
    return {name: current[name] for name in space.spaces if isinstance(current[name], get_args(Scalar))}


def space_problems(
    config: StudyConfig, name: str, losses: Mapping[str, LossChoice], train: TrainConfig
) -> Iterable[str]:
    problems: list[str] = []
    if name == "train":
        _train_part(config, train, problems, ())
    else:
        _loss_part(config, losses[name], problems)
        if not problems and name in getattr(config, "losses", ()):
            _checked_space(config, losses[name], train, problems, always_train=False)
    return problems


def _checked(config: StudyConfig, loss: LossChoice, train: TrainConfig, *, always_train: bool) -> SearchSpace:
    problems: list[str] = []
    space = _checked_space(config, loss, train, problems, always_train=always_train)
    if problems:
        raise ConfigError("\n".join(["tune.space is wrong:", *(f"  {problem}" for problem in problems)]))
    if not space.spaces:
        raise ConfigError(f"tune.space fixes every parameter of {loss.name}: there is nothing left to tune")
    return space


def _checked_space(
    config: StudyConfig, loss: LossChoice, train: TrainConfig, problems: list[str], *, always_train: bool
) -> SearchSpace:
    own = SearchSpace({}, {}) if always_train else _loss_part(config, loss, problems)
    shared = _train_part(config, train, problems, () if own.spaces else _TRAIN_DEFAULT)
    space = SearchSpace({**own.spaces, **shared.spaces}, {**own.fixed, **shared.fixed})
    if not problems:
        problems += _contradictions(space, loss, train)
    return space


def _contradictions(space: SearchSpace, loss: LossChoice, train: TrainConfig) -> list[str]:
    """Fixed values, and ends of what is searched, under which training and loss contradict each other."""
    if loss_problems(train, loss):
        return []  # of params.yaml itself, which is said where that is read
    fixed_train, fixed_loss = _replaced(train, loss, space.fixed)
    found = loss_problems(fixed_train, fixed_loss)
    if found:
        return [f"tune.space fixes {', '.join(space.fixed)}: {problem}" for problem in found]
    problems = []
    for name, searched in space.spaces.items():
        for value in _ends(searched):
            found = loss_problems(*_replaced(fixed_train, fixed_loss, {name: value}))
            if found:
                key = name if name.startswith(TRAIN_PREFIX) else f"{loss.name}.{name}"
                problems.append(f"tune.space.{key} reaches {value!r}, which cannot be trained. {found[0]}")
                break
    return problems


def _replaced(train: TrainConfig, loss: LossChoice, values: Mapping[str, Scalar]) -> tuple[TrainConfig, LossChoice]:
    """``train`` and ``loss`` with ``values``, which their types are known to take."""
    of_train = {k.removeprefix(TRAIN_PREFIX): v for k, v in values.items() if k.startswith(TRAIN_PREFIX)}
    of_loss = {k: v for k, v in values.items() if not k.startswith(TRAIN_PREFIX)}
    params = type(loss.params).model_validate({**loss.params.model_dump(), **of_loss})
    return (
        type(train).model_validate({**train.model_dump(), **of_train}),
        loss.model_copy(update={"params": params}),
    )


def _loss_part(config: StudyConfig, loss: LossChoice, problems: list[str]) -> SearchSpace:
    settings = config.space.get(loss.name, {})
    return _resolve(
        f"tune.space.{loss.name}",
        settings=settings,
        # What a fixed value makes pointless is not searched.
        searched=_with_fixed(loss.params, settings).search(),
        declared=loss.params.SEARCH,
        current=loss.params,
        allowed=list(type(loss.params).model_fields),
        problems=problems,
    )


def _train_part(config: StudyConfig, train: TrainConfig, problems: list[str], default: tuple[str, ...]) -> SearchSpace:
    found = _resolve(
        "tune.space.train",
        settings=config.space.get("train", {}),
        searched={name: TRAIN_SEARCH[name] for name in default},
        declared=TRAIN_SEARCH,
        current=train,
        allowed=list(TRAIN_SEARCH),
        problems=problems,
    )
    return SearchSpace(
        {TRAIN_PREFIX + name: space for name, space in found.spaces.items()},
        {TRAIN_PREFIX + name: value for name, value in found.fixed.items()},
    )


def _resolve(
    where: str,
    *,
    settings: Mapping[str, Scalar | SpaceSetting],
    searched: Mapping[str, Space],
    declared: Mapping[str, Space],
    current: ConfigModel,
    allowed: Sequence[str],
    problems: list[str],
) -> SearchSpace:
    """``searched`` with ``settings`` applied; what is wrong is appended to ``problems``."""
    spaces, fixed = dict(searched), {}
    with_fixed = _with_fixed(current, settings)
    for name, setting in settings.items():
        key = f"{where}.{name}"
        if name not in allowed:
            problems.append(f"{key}: unknown parameter; allowed: {', '.join(allowed) or 'none'}")
            continue
        spaces.pop(name, None)
        if not isinstance(setting, SpaceSetting):
            problem = _outside(current, name, [setting])
            fixed[name] = setting
        else:
            space, problem = _merged(setting, declared.get(name), current, name)
            if space is not None:
                spaces[name] = space
                problem = _outside(with_fixed, name, _ends(space)) or _undivided(with_fixed, name, space)
        if problem:
            problems.append(f"{key}{problem}")
    return SearchSpace(spaces, fixed)


def _merged(setting: SpaceSetting, declared: Space | None, current: ConfigModel, name: str) -> tuple[Space | None, str]:
    """A setting with the declared ends where it gives none, or what is wrong with it."""
    if setting.choices is not None:
        return Choice(choices=tuple(setting.choices)), ""
    given = setting.model_dump(exclude_none=True)
    if isinstance(declared, Choice) and not given:
        return declared, ""
    ends = declared.model_dump() if isinstance(declared, FloatRange | IntRange) else {}
    merged = {"log": False, **ends, **given}
    whole = _takes_whole_numbers(current, name)
    problem = _range_problem(merged, whole)
    if problem:
        return None, problem
    if whole:
        return IntRange(low=int(merged["low"]), high=int(merged["high"]), log=merged["log"]), ""
    return FloatRange(low=merged["low"], high=merged["high"], log=merged["log"]), ""


def _range_problem(ends: Mapping[str, Any], whole: bool) -> str:
    if "low" not in ends or "high" not in ends:
        return ": has no range of its own; give low and high, or choices"
    low, high = float(ends["low"]), float(ends["high"])
    if low >= high:
        return f": the range from {low:g} to {high:g} is inverted or empty; low must be below high"
    if ends["log"] and low <= 0:
        return f": log needs a range above 0, got low {low:g}"
    if whole and not (low.is_integer() and high.is_integer()):
        return f": takes whole numbers, got {low:g} to {high:g}"
    return ""


def _ends(space: Space) -> list[Scalar]:
    return list(space.choices) if isinstance(space, Choice) else [space.low, space.high]


def _outside(current: ConfigModel, name: str, values: Sequence[Scalar]) -> str:
    """What the parameter's own type says to the first of ``values`` that it refuses; empty where it takes all."""
    for value in values:
        try:
            type(current).model_validate({**current.model_dump(), name: value})
        except ValidationError as err:
            message = err.errors()[0]["msg"].removeprefix("Value error, ")
            return f" = {value!r}: {message[:1].lower()}{message[1:]}"
    return ""


def _undivided(current: ConfigModel, name: str, space: Space) -> str:
    """That a range of batch sizes holds some that ``train.accumulate`` does not divide."""
    parts = getattr(current, "accumulate", 1)
    if name != "batch_size" or not isinstance(space, IntRange) or parts == 1:
        return ""
    return (
        f": the range from {space.low} to {space.high} holds sizes that train.accumulate = {parts} does not divide. "
        f"Give choices, all multiples of {parts}"
    )


def _with_fixed(current: Model, settings: Mapping[str, Scalar | SpaceSetting]) -> Model:
    """``current`` with the values that ``settings`` fixes, those that it refuses left out."""
    for name, setting in settings.items():
        if name in type(current).model_fields and not isinstance(setting, SpaceSetting):
            with suppress(ValidationError):
                current = type(current).model_validate({**current.model_dump(), name: setting})
    return current


def _takes_whole_numbers(current: ConfigModel, name: str) -> bool:
    annotation: Any = type(current).model_fields[name].annotation
    return annotation is int
