"""The section ``tune`` of params.yaml: what a study does, where it is kept, and how it searches.

What follows from ``tune.space`` is ``search_space``'s, what contradicts other keys ``tune_checks``'. Needs neither
torch nor Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from raregrade.config.training import share_epochs
from raregrade.labels import Task
from raregrade.schema import ConfigModel, Scalar

if TYPE_CHECKING:
    from raregrade.config.model import LossChoice
    from raregrade.config.training import TrainConfig

TUNED_SUFFIX = "-tuned"
TRAIN_PREFIX = "train."
JOURNAL = ".raregrade/tuning/studies.log"


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
            the best trial, where there are enough for its p-value to fall below ``wilcoxon_p``; ``both`` does both.
        min_epochs: epochs before which Hyperband stops nothing; of the last stage where a loss trains in stages.
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


def baseline_kind(task: Task) -> str:
    """The loss against which every tuned loss is held: cross-entropy, of the labels' kind."""
    return "bce" if task == "multilabel" else "ce"


def untuned_name(name: str) -> str:
    """The loss of which ``name`` may be the tuned form."""
    return name.removesuffix(TUNED_SUFFIX)


def judged_epochs(train: TrainConfig, loss: LossChoice) -> int:
    """How many epochs the value of a training is the best of: those of its last stage; 0 where that trains nothing."""
    return share_epochs(train.epochs, loss.params.stage_shares)[-1]


def uses_hyperband(config: StudyConfig) -> bool:
    return config.pruner in ("both", "hyperband")


def uses_wilcoxon(config: StudyConfig) -> bool:
    return config.pruner in ("both", "wilcoxon")
