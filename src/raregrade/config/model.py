"""The typed form of params.yaml, one class a top-level key, with ranges and the checks across keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from raregrade import __version__
from raregrade.config.data import DataConfig
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig, GateRule, RegisterConfig, gate_problems
from raregrade.config.metrics import DEFAULT_SELECTION, METRIC_TASKS
from raregrade.config.training import TrainConfig, loss_problems
from raregrade.config.tune_checks import tune_problems
from raregrade.config.tuning import TUNED_SUFFIX, TuneConfig, untuned_name
from raregrade.losses import LOSSES, LossDefinition
from raregrade.schema import ConfigModel


class PhantomConfig(ConfigModel):
    """The synthetic dataset that ``raregrade phantom`` draws."""

    flavour: Literal["ordinal", "imbalanced", "hierarchical"] = "ordinal"
    patients: int = Field(600, ge=20, le=100_000)
    max_images_per_patient: int = Field(4, ge=1, le=20)
    image_size: int = Field(64, ge=16, le=512)
    label_noise: float = Field(0.08, ge=0, lt=0.5)
    contrast: float = Field(1.0, gt=0, le=4)


class LossChoice(ConfigModel):
    """One entry of ``losses``: ``name`` is its key, ``kind`` the loss it is a setting of (by default the same)."""

    name: str
    kind: str
    params: SerializeAsAny[LossDefinition]

    @model_validator(mode="before")
    @classmethod
    def _params_of_the_kind(cls, value: Any) -> Any:
        """Read ``params`` as the type of its kind, so that a section survives a round trip through JSON."""
        if isinstance(value, dict) and isinstance(value.get("params"), dict) and value.get("kind") in LOSSES:
            return {**value, "params": LOSSES[value["kind"]].model_validate(value["params"])}
        return value


class TrackingConfig(ConfigModel):
    """Where runs are logged: an MLflow tracking URI, or ``none``."""

    uri: str = Field("sqlite:///mlflow.db", min_length=1)
    experiment: str = Field("raregrade", min_length=1)


VersionText = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(\+\d+)?$")]


class StepVersions(ConfigModel):
    """The version of raregrade that the results of each step are from: DVC runs a step again where it changes.

    ``+N`` after it counts how often a step was marked to run again without a new version.
    """

    phantom: VersionText = __version__
    prepare: VersionText = __version__
    train: VersionText = __version__
    tune: VersionText = __version__
    evaluate: VersionText = __version__
    compare: VersionText = __version__


class MadeFor(ConfigModel):
    """The version of raregrade that params.yaml was made for. ``raregrade upgrade`` writes this section."""

    version: VersionText = __version__
    steps: StepVersions = StepVersions()


class Settings(ConfigModel):
    """params.yaml as the steps need it that train no loss: ``losses`` are names and kinds, their parameters unread.

    The file of a loss imports torch, which these steps do without.
    """

    raregrade: MadeFor = MadeFor()

    seed: int = Field(35, ge=0, lt=2**31)
    phantom: PhantomConfig = PhantomConfig()
    data: DataConfig
    train: TrainConfig = TrainConfig()
    losses: dict[str, Any]
    compare: CompareConfig
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: list[GateRule] = Field(default_factory=list)
    alarms: AlarmConfig = AlarmConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        task = self.data.task
        for name in self.compare.losses:
            if name not in self.losses:
                raise ValueError(
                    f"compare.losses: {name!r} is not defined under losses; defined: {', '.join(self.losses) or 'none'}"
                )
        lists: dict[str, list[Any]] = {"losses": self.compare.losses, "seeds": self.compare.seeds}
        lists |= {f"seeds_of.{loss}": seeds for loss, seeds in self.compare.seeds_of.items()}
        for key, values in lists.items():
            doubles = sorted({str(v) for v in values if values.count(v) > 1})
            if doubles:
                raise ValueError(f"compare.{key}: given more than once: {', '.join(doubles)}")
        compared = [*self.compare.losses, *(name + TUNED_SUFFIX for name in self.tune.losses)]
        if self.compare.baseline not in compared:
            plain = untuned_name(self.compare.baseline)
            hint = f"; it is where tune.losses names {plain}" if plain in self.compare.losses else ""
            raise ValueError(
                f"compare.baseline: {self.compare.baseline!r} is not one of the compared losses "
                f"({', '.join(compared)}){hint}"
            )
        for name in self.compare.seeds_of:
            if name not in compared:
                raise ValueError(
                    f"compare.seeds_of: {name!r} is not one of the compared losses ({', '.join(compared)})"
                )
        self._check_tasks()
        metric = self.train.selection_metric
        if metric != "auto" and task not in METRIC_TASKS[metric]:
            allowed = ", ".join(m for m, tasks in METRIC_TASKS.items() if task in tasks)
            raise ValueError(f"train.selection_metric: {metric} is not defined for task {task}; allowed: {allowed}")
        known = [m for m, tasks in METRIC_TASKS.items() if task in tasks]
        problems = self._loss_problems(known)
        problems += self.evaluate.problems(self.data.label_space())
        problems += gate_problems(self.gate, self.alarms, self.data.classes, known)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def identity(self) -> dict[str, Any]:
        """What tells the runs of one pipeline from those of another, the losses as written.

        Neither where runs are logged nor the installed version changes what is computed, so they do not count. The same
        for ``Settings`` and ``Params`` of one file.
        """
        left_out: Any = {"tracking": True, "losses": True, "raregrade": {"version"}}
        content = self.model_dump(mode="json", by_alias=True, exclude=left_out)
        return content | {"losses": {name: _numbers_as_floats(value) for name, value in self._written_losses().items()}}

    def _written_losses(self) -> dict[str, Any]:
        return self.losses

    def _check_tasks(self) -> None:
        """Raise ValueError where a compared loss does not fit the task."""

    def _loss_problems(self, metrics: list[str]) -> list[str]:
        """What contradicts the parameters of the losses; ``metrics`` are defined for the task."""
        del metrics
        return []

    @property
    def selection_metric(self) -> str:
        """The metric, without split prefix, that picks epochs and losses on validation."""
        metric = self.train.selection_metric
        return DEFAULT_SELECTION[self.data.task] if metric == "auto" else metric


class Params(Settings):
    """The whole of params.yaml."""

    losses: dict[str, LossChoice]

    def _written_losses(self) -> dict[str, Any]:
        return {
            name: {"kind": choice.kind, **choice.params.model_dump(mode="json", exclude_unset=True)}
            for name, choice in self.losses.items()
        }

    def _check_tasks(self) -> None:
        for name in self.compare.losses:
            tasks = self.losses[name].params.tasks
            if self.data.task not in tasks:
                raise ValueError(
                    f"compare.losses: {name} fits task {' or '.join(tasks)}, but data.task is {self.data.task}"
                )

    def _loss_problems(self, metrics: list[str]) -> list[str]:
        baseline = self.compare.baseline
        problems = tune_problems(self.tune, self.losses, self.train, self.data.task, metrics, baseline=baseline)
        for name in dict.fromkeys([*self.compare.losses, *(n for n in self.tune.losses if n in self.losses)]):
            problems += loss_problems(self.train, self.losses[name])
        return problems

    def to_dict(self) -> dict[str, Any]:
        """As params.yaml would hold it, defaults filled in."""
        value = self.model_dump(mode="json", by_alias=True)
        value["losses"] = {
            name: ({} if c.kind == name else {"kind": c.kind}) | c.params.model_dump(mode="json")
            for name, c in self.losses.items()
        }
        return value


def _numbers_as_floats(value: Any) -> Any:
    """``2`` and ``2.0`` are one value of a parameter."""
    if isinstance(value, dict):
        return {key: _numbers_as_floats(entry) for key, entry in value.items()}
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
