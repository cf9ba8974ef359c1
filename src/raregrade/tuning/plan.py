"""What one command tunes: the study of the loss, that of the baseline, and what confirms their outcome.

Studies are named by a hash of everything that their results depend on, so the same command finds its study again,
another setting never does, and two losses share the study of their baseline, also with that of the baseline itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raregrade import __version__
from raregrade.config import LossChoice, StudyConfig, StudyStorage, TrainSection, TuneSection
from raregrade.config.search_space import SearchSpace, baseline_space, default_values, search_space
from raregrade.config.training import check_training
from raregrade.config.tune_checks import study_problems
from raregrade.config.tuned import with_values
from raregrade.config.tuning import baseline_kind
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import ConfigError
from raregrade.labels import label_statistics
from raregrade.losses import LOSSES, create_loss
from raregrade.schema import Scalar, contains
from raregrade.tracking import DatasetIdentity, Tracking, dvc_md5
from raregrade.tuning.dataset import TuningDataset
from raregrade.tuning.study import Start, StudyPlan, Unit
from raregrade.tuning.warm_start import warm_starts

# Seeds of trials and of confirmations, apart from each other and from the small ones that people give to models.
_TRIAL_SEED = 10_001
_CONFIRM_SEED = 20_001
DEFAULT, TUNED = "default", "tuned"
BASELINE_DEFAULT, BASELINE = "baseline_default", "baseline"


@dataclass(frozen=True)
class TunePlan:
    """A command: what it studies, on which data, where that is kept and logged.

    Attributes:
        search: the study of the loss.
        baseline: that of the baseline; None where the loss is the baseline itself.
        fixed: what ``tune.space`` fixes of the loss and its training, and of the baseline's.
        confirm_units: the trainings of a confirmation.
        held_out: the share of the images that a fold holds out, on average; 0 on the fixed split.
    """

    section: TuneSection
    data: Path
    identity: DatasetIdentity
    storage: StudyStorage
    tracking: Tracking
    checkpoints: Path | str | None
    search: StudyPlan
    baseline: StudyPlan | None
    fixed: Mapping[str, Scalar]
    fixed_of_baseline: Mapping[str, Scalar]
    confirm_units: tuple[Unit, ...]
    held_out: float

    @property
    def searches(self) -> tuple[StudyPlan, ...]:
        """The studies that look for parameters."""
        return (self.search,) if self.baseline is None else (self.search, self.baseline)

    def open_dataset(self, fold: int | None) -> PreparedDataset:
        """The dataset without its test split."""
        return TuningDataset.open(self.data, fold=fold)

    def confirmations(
        self, best: Mapping[str, Scalar], best_of_baseline: Mapping[str, Scalar] | None
    ) -> dict[str, StudyPlan]:
        """Trainings with fresh seeds: of the settings exactly as params.yaml has them, of the best trial, and these two
        of the baseline. What ``tune.space`` fixes belongs to trials alone.
        """
        arms = {
            DEFAULT: _confirmation(self, TrainSection(train=self.section.train, loss=self.section.loss)),
            TUNED: _confirmation(self, with_values(self.search.section, best)),
        }
        if self.baseline is not None and best_of_baseline is not None:
            plain = TrainSection(train=self.section.train, loss=self.baseline.section.loss)  # has no parameters
            arms[BASELINE_DEFAULT] = _confirmation(self, plain)
            arms[BASELINE] = _confirmation(self, with_values(self.baseline.section, best_of_baseline))
        return arms


def make_plan(
    section: TuneSection,
    data: Path,
    *,
    storage: StudyStorage,
    tracking: Tracking,
    checkpoints: Path | str | None,
) -> TunePlan:
    """Check everything that can be checked before anything is trained, and name the studies.

    Raises:
        UserError: a wrong space, settings that could never act, a loss that does not fit the data or refuses its
            parameters, folds that there are not.
    """
    dataset = TuningDataset.open(data)
    task = dataset.label_space.task
    if task not in section.loss.params.tasks:
        fits = " or ".join(section.loss.params.tasks)
        raise ConfigError(f"loss {section.loss.name} fits task {fits}, and the labels of {data} are {task}")
    check_training(section.train, section.loss)
    problems = study_problems(section.tune, section.train, section.loss)
    if problems:
        raise ConfigError("\n".join(problems))
    folds = _folds(dataset)
    units = _units(section.tune, folds, data)
    kind = baseline_kind(task)
    share = _Shared(section, units, dataset.content_hash)
    space = search_space(section.tune, section.loss, section.train)
    baseline, fixed_of_baseline = None, {}
    if section.loss.kind == kind:
        search = _search(share, section.loss, space, f"baseline-{kind}")
    else:
        search = _search(share, section.loss, space, section.loss.name)
        choice = LossChoice(name=kind, kind=kind, params=LOSSES[kind]())
        own = baseline_space(section.tune, choice, section.train)
        baseline, fixed_of_baseline = _search(share, choice, own, f"baseline-{kind}"), own.fixed
    for trained in (section.loss, search.section.loss):
        _check_loss(trained, dataset)
    return TunePlan(
        section=section,
        data=data,
        identity=_identity(dataset),
        storage=storage,
        tracking=tracking.for_dataset(dataset.content_hash),
        checkpoints=checkpoints,
        search=search,
        baseline=baseline,
        fixed=space.fixed,
        fixed_of_baseline=fixed_of_baseline,
        confirm_units=_confirm_units(section.tune, folds),
        held_out=0.0 if section.tune.over == "seeds" else 1.0 / len(folds),
    )


def _check_loss(loss: LossChoice, dataset: PreparedDataset) -> None:
    """Make the loss once, as a training will: it may need a library, or refuse its parameters for these labels."""
    statistics = label_statistics(dataset.targets(dataset.rows("train")), dataset.label_space)
    create_loss(
        loss.kind,
        label_space=dataset.label_space,
        class_counts=statistics.class_counts,
        statistics=statistics,
        **loss.params.model_dump(),
    )


def _folds(dataset: PreparedDataset) -> list[int]:
    return sorted({int(fold) for fold in dataset.manifest["fold"] if fold >= 0})


def _confirm_units(config: StudyConfig, folds: Sequence[int]) -> tuple[Unit, ...]:
    """A fresh seed each. Over folds these take turns, those first on which no trial was validated."""
    if config.over == "seeds":
        return tuple(Unit(_CONFIRM_SEED + i) for i in range(config.confirm))
    order = [*folds[config.repeats :], *folds[: config.repeats]]
    return tuple(Unit(_CONFIRM_SEED + i, order[i % len(order)]) for i in range(config.confirm))


def _units(config: StudyConfig, folds: Sequence[int], data: Path) -> tuple[Unit, ...]:
    """The trainings of a trial: seeds on the fixed split, or folds with one seed."""
    if config.over == "seeds":
        return tuple(Unit(_TRIAL_SEED + i) for i in range(config.repeats))
    if config.repeats > len(folds):
        raise ConfigError(
            f"tune.repeats: {config.repeats} folds are asked for, and {data} has {len(folds)}; lower it, or prepare "
            "the data with more (data.split.folds)"
        )
    return tuple(Unit(_TRIAL_SEED, fold) for fold in folds[: config.repeats])


@dataclass(frozen=True)
class _Shared:
    """What the studies of one command have in common."""

    section: TuneSection
    units: tuple[Unit, ...]
    content_hash: str


def _search(shared: _Shared, loss: LossChoice, space: SearchSpace, name: str) -> StudyPlan:
    section = shared.section
    trained = with_values(TrainSection(train=section.train, loss=loss), space.fixed)
    config = section.tune
    identity = {
        "spaces": {name: value.model_dump(mode="json") for name, value in space.spaces.items()},
        "pruning": config.model_dump(include={"pruner", "min_epochs", "reduction_factor", "wilcoxon_p"}),
        "warm_start": config.warm_start,
    }
    return StudyPlan(
        name=f"{name}-{_hash(trained, section.objective, shared.units, shared.content_hash, identity)}",
        section=trained,
        trials=config.trials,
        units=shared.units,
        metric=section.objective,
        spaces=space.spaces,
        starts=_starts(space, loss, section),
        config=config,
    )


def _starts(space: SearchSpace, loss: LossChoice, section: TuneSection) -> tuple[Start, ...]:
    """The settings as they stand, then the publication's, then the best of earlier studies."""
    default = default_values(space, loss, section.train)
    found = [Start(default, DEFAULT)]
    found += [Start({**default, **paper}, "paper") for paper in loss.params.PAPER]
    found += [Start({**default, **values}, "warm_start") for values in warm_starts(section.tune.warm_start, loss)]
    return starts_within(space, found)


def starts_within(space: SearchSpace, starts: Sequence[Start]) -> tuple[Start, ...]:
    """``starts`` cut to what is searched; without those that lie outside, and without doubles."""
    found: list[Start] = []
    for start in starts:
        values = {name: value for name, value in start.values.items() if name in space.spaces}
        inside = all(contains(space.spaces[name], value) for name, value in values.items())
        if values and inside and all(values != other.values for other in found):
            found.append(Start(values, start.source))
    return tuple(found)


def _confirmation(plan: TunePlan, trained: TrainSection) -> StudyPlan:
    """The same settings again with each of the fresh seeds. With more or fewer of these it is the same study."""
    units = plan.confirm_units
    order = {"repeats": plan.section.tune.repeats} if plan.held_out else {}
    name = _hash(trained, plan.search.metric, units[:1], plan.identity.content_hash, order)
    return StudyPlan(
        name=f"confirm-{trained.loss.kind}-{name}",
        section=trained,
        trials=len(units),
        units=units,
        metric=plan.search.metric,
        unit_each=True,
    )


def section_hash(section: TrainSection) -> str:
    """Names all that two trainings with the same seed on the same data can differ by; not what the loss is called."""
    return _short({"train": section.train.model_dump(mode="json"), **_loss(section)})


def _hash(section: TrainSection, metric: str, units: Sequence[Unit], data: str, more: dict[str, Any]) -> str:
    content = {
        "train": section.train.model_dump(mode="json", exclude={"selection_metric"}),
        **_loss(section),
        "metric": metric,
        "units": [[unit.seed, unit.fold] for unit in units],
        "data": data,
        "version": __version__,
        **more,
    }
    return _short(content)


def _loss(section: TrainSection) -> dict[str, Any]:
    return {"kind": section.loss.kind, "loss": section.loss.params.model_dump(mode="json")}


def _short(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _identity(dataset: PreparedDataset) -> DatasetIdentity:
    return DatasetIdentity(
        content_hash=dataset.content_hash,
        dvc_md5=dvc_md5(dataset.root),
        source=str(dataset.info["source"]),
        num_images=len(dataset.manifest),
    )
