"""The section ``tune`` of params.yaml: what a study does, where it is kept, and what it searches.

A search space is what the loss declares (``LossParams.search``), narrowed, fixed or widened by ``tune.space``.
Names of loss parameters stand alone (``alpha``), those of training parameters begin with ``train.``.
Needs neither torch nor Optuna.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from raregrade.config.base import ConfigModel
from raregrade.config.losses import LOSS_PARAMS
from raregrade.config.space import Choice, FloatRange, IntRange, Scalar, Space, contains
from raregrade.errors import ConfigError
from raregrade.labels import Task

if TYPE_CHECKING:
    from raregrade.config.model import LossChoice
    from raregrade.config.training import TrainConfig

TUNED_SUFFIX = "-tuned"
TRAIN_PREFIX = "train."
JOURNAL = ".raregrade/tuning/studies.log"

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


class SpaceSetting(ConfigModel):
    """A range (``low``, ``high``, ``log``) or a list of ``choices``; ends that are left out are the declared ones."""

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    choices: list[Scalar] | None = Field(None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(cls.model_fields)}")
        return value

    @model_validator(mode="after")
    def _range_or_choices(self) -> SpaceSetting:
        if self.choices is not None and (self.low, self.high, self.log) != (None, None, None):
            raise ValueError("give either low, high and log, or choices")
        return self


def _form(value: Any) -> str:
    return "dict[range]" if isinstance(value, dict | SpaceSetting) else "str"


# Which of the two a value is follows from its form, so that an error is about that one alone.
Setting = Annotated[
    Annotated[Scalar, Tag("str")] | Annotated[SpaceSetting, Tag("dict[range]")],
    Discriminator(_form),
]


class StudyConfig(ConfigModel):
    """What a study does.

    Attributes:
        trials: finished trials of the loss, and as many of the baseline.
        objective: a metric on validation; ``auto`` is the selection metric of the training.
        over: a trial is the mean over ``repeats`` seeds on the fixed split, or over as many folds.
        confirm: fresh seeds with which the best trial, the loss's own settings and the tuned baseline are trained
            before one is called better.
        pruner: ``hyperband`` compares the epochs of a trial's first repeat, ``wilcoxon`` the repeats with those of
            the best trial; ``both`` does both.
        min_epochs: epochs before which Hyperband stops nothing.
        reduction_factor: Hyperband continues the best 1 / ``reduction_factor`` of a bracket's trials at each step.
        wilcoxon_p: one-sided p-value below which a trial is stopped as worse than the best.
        space: by loss, and ``train``: a value fixes a parameter, keys narrow or widen its range.
        warm_start: ``best.yaml`` files or storages of earlier studies, whose best settings are tried early.
    """

    trials: int = Field(30, ge=1, le=10_000)
    objective: Literal["auto", "qwk", "mae", "accuracy", "balanced_accuracy", "macro_f1", "auroc"] = "auto"
    over: Literal["seeds", "folds"] = "seeds"
    repeats: int = Field(2, ge=1, le=20)
    confirm: int = Field(5, ge=2, le=100)
    pruner: Literal["both", "hyperband", "wilcoxon", "none"] = "both"
    min_epochs: int = Field(3, ge=1, le=10_000)
    reduction_factor: int = Field(3, ge=2, le=10)
    wilcoxon_p: float = Field(0.1, gt=0, lt=1)
    space: dict[str, dict[str, Setting]] = Field(default_factory=dict)
    warm_start: list[str] = Field(default_factory=list)


class StudyStorage(ConfigModel):
    """Where a study is kept and how its workers show that they live.

    Attributes:
        url: a file (Optuna's journal, for the workers of one machine), ``postgresql://…`` (any number of machines),
            or ``sqlite:///…`` (one worker).
        heartbeat: seconds between two signs of life in Postgres.
        grace: seconds without one after which a trial counts as dead and is tried again.
        retries: how often a trial whose worker died is tried again.
    """

    url: str = Field(JOURNAL, min_length=1)
    heartbeat: int = Field(60, ge=1, le=3600)
    grace: int = Field(180, ge=2, le=36_000)
    retries: int = Field(5, ge=0, le=1000)

    @model_validator(mode="after")
    def _grace_is_longer(self) -> StudyStorage:
        if self.grace < 2 * self.heartbeat:
            raise ValueError(
                f"grace: {self.grace} s is less than two heartbeats of {self.heartbeat} s; a living worker would "
                "count as dead"
            )
        return self


class TuneConfig(StudyConfig):
    """The whole section: what a study does, which losses ``dvc repro`` tunes, and how the work is carried out."""

    losses: list[str] = Field(default_factory=list)
    workers: int = Field(1, ge=1, le=1024)
    storage: str = Field(JOURNAL, min_length=1)
    heartbeat: int = Field(60, ge=1, le=3600)
    grace: int = Field(180, ge=2, le=36_000)
    retries: int = Field(5, ge=0, le=1000)

    @model_validator(mode="after")
    def _storage_makes_sense(self) -> TuneConfig:
        self.study_storage()
        return self

    def study(self) -> StudyConfig:
        """The part that can change what a study finds."""
        return StudyConfig.model_validate({name: getattr(self, name) for name in StudyConfig.model_fields})

    def study_storage(self) -> StudyStorage:
        return StudyStorage(url=self.storage, heartbeat=self.heartbeat, grace=self.grace, retries=self.retries)


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


def baseline_kind(task: Task) -> str:
    """The loss against which every tuned loss is held: cross-entropy, of the labels' kind."""
    return "bce" if task == "multilabel" else "ce"


def tune_problems(
    config: TuneConfig,
    losses: Mapping[str, LossChoice],
    train: TrainConfig,
    task: Task,
    metrics: Sequence[str],
) -> list[str]:
    """What of the section ``tune`` contradicts the rest of params.yaml, one message each.

    Args:
        losses: those that params.yaml defines.
        metrics: the metrics that are defined for ``task``.
    """
    problems = []
    if config.objective not in ("auto", *metrics):
        problems.append(
            f"tune.objective: {config.objective} is not defined for task {task}; allowed: auto, {', '.join(metrics)}"
        )
    defined = ", ".join(losses) or "none"
    for name in config.losses:
        if name not in losses:
            problems.append(f"tune.losses: {name!r} is not defined under losses; defined: {defined}")
        elif task not in losses[name].params.tasks:
            fits = " or ".join(losses[name].params.tasks)
            problems.append(f"tune.losses: {name} fits task {fits}, but data.task is {task}")
        if name + TUNED_SUFFIX in losses:
            problems.append(f"losses.{name}{TUNED_SUFFIX}: this name is kept for the tuned {name}; choose another name")
    doubles = sorted({name for name in config.losses if config.losses.count(name) > 1})
    if doubles:
        problems.append(f"tune.losses: given more than once: {', '.join(doubles)}")
    for name in config.space:
        if name not in losses and name != "train":
            problems.append(f"tune.space.{name}: not defined under losses; defined: {defined}, and train")
    for name in sorted({*config.space, *config.losses, "train"} & {*losses, "train"}):
        problems += _space_problems(config, name, losses, train)
    return problems


def _space_problems(
    config: StudyConfig, name: str, losses: Mapping[str, LossChoice], train: TrainConfig
) -> Iterable[str]:
    problems: list[str] = []
    if name == "train":
        _train_part(config, train, problems, ())
    else:
        _loss_part(config, losses[name], problems)
    return problems


def _checked(config: StudyConfig, loss: LossChoice, train: TrainConfig, *, always_train: bool) -> SearchSpace:
    problems: list[str] = []
    own = SearchSpace({}, {}) if always_train else _loss_part(config, loss, problems)
    shared = _train_part(config, train, problems, () if own.spaces else _TRAIN_DEFAULT)
    if problems:
        raise ConfigError("\n".join(["tune.space is wrong:", *(f"  {problem}" for problem in problems)]))
    space = SearchSpace({**own.spaces, **shared.spaces}, {**own.fixed, **shared.fixed})
    if not space.spaces:
        raise ConfigError(f"tune.space fixes every parameter of {loss.name}: there is nothing left to tune")
    return space


def _loss_part(config: StudyConfig, loss: LossChoice, problems: list[str]) -> SearchSpace:
    return _resolve(
        f"tune.space.{loss.name}",
        settings=config.space.get(loss.name, {}),
        searched=loss.params.search(),
        declared=LOSS_PARAMS[loss.kind].SEARCH,
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
                problem = _outside(current, name, _ends(space))
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


def _takes_whole_numbers(current: ConfigModel, name: str) -> bool:
    annotation: Any = type(current).model_fields[name].annotation
    return annotation is int
