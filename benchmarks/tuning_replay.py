"""Replay studies of loss parameters on recorded learning curves; ``tuning.py`` says what is measured."""

from __future__ import annotations

import csv
import math
import os
import statistics
import tempfile
import zlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import optuna
from tuning_record import TASKS, Task, prepare_phantom

from raregrade.config import StudyConfig, StudyStorage, TuneSection, load_params
from raregrade.losses import LOSSES
from raregrade.tracking import Tracking
from raregrade.tracking.studies import TrialLog
from raregrade.tuning import study as studies
from raregrade.tuning import trial as trials
from raregrade.tuning.plan import TunePlan, make_plan
from raregrade.tuning.storage import SharedStorage
from raregrade.tuning.study import StudyPlan, best_trials

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
BAR = 0.35

Setting = tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """The recorded curves of one loss.

    Attributes:
        names: the parameters of the grid.
        log: which of them are searched on a log scale.
        values: the objective after each epoch, best so far not taken: setting -> seed -> float [epochs].
    """

    names: tuple[str, ...]
    log: tuple[bool, ...]
    values: dict[Setting, dict[int, npt.NDArray[np.float64]]]

    @property
    def seeds(self) -> list[int]:
        return sorted(next(iter(self.values.values())))

    @property
    def epochs(self) -> int:
        return len(next(iter(next(iter(self.values.values())).values())))

    def nearest(self, values: dict[str, Any]) -> Setting:
        """The setting of the grid nearest to ``values``."""

        def distance(setting: Setting) -> float:
            pairs = zip(self.names, self.log, setting, strict=True)
            return sum((math.log(values[name] / at) if log else (values[name] - at)) ** 2 for name, log, at in pairs)

        return min(self.values, key=distance)

    def finals(self, setting: Setting) -> npt.NDArray[np.float64]:
        """What training with ``setting`` comes to: the best epoch's objective, one number a seed."""
        return np.array([curve.max() for _, curve in sorted(self.values[setting].items())])

    def good(self, repeats: int, *, pooled: bool = False) -> set[Setting]:
        """The settings within one standard error, over ``repeats`` seeds, of the grid's best.

        Args:
            repeats: seeds that the error is of.
            pooled: the spread of seeds is that within all settings of the grid, not of the best one alone, which over a
                handful of seeds is itself a guess.
        """
        means = {setting: float(self.finals(setting).mean()) for setting in self.values}
        best = max(means, key=lambda setting: means[setting])
        variances = {setting: float(self.finals(setting).var(ddof=1)) for setting in self.values}
        variance = statistics.fmean(variances.values()) if pooled else variances[best]
        return {setting for setting, mean in means.items() if mean >= means[best] - math.sqrt(variance / repeats)}


def read_curves(table: Path, task: Task) -> Curves:
    """The curves of ``task``'s loss in ``table``; seeds that do not have every setting are left out."""
    names = tuple(task.grid[0])
    found: dict[Setting, dict[int, list[tuple[int, float]]]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["loss"] == task.loss:
                setting = tuple(float(row[name]) for name in names)
                curve = found.setdefault(setting, {}).setdefault(int(row["seed"]), [])
                curve.append((int(row["epoch"]), float(row[f"val_{task.metric}"])))
    common = set.intersection(*(set(curves) for curves in found.values()))
    searched = LOSSES[task.loss].SEARCH
    return Curves(
        names,
        tuple(bool(getattr(searched[name], "log", False)) for name in names),
        {
            setting: {seed: np.array([value for _, value in sorted(curves[seed])]) for seed in sorted(common)}
            for setting, curves in found.items()
        },
    )


@dataclass(frozen=True)
class Replay:
    """One replayed study.

    Attributes:
        epochs: spent until the best trial's setting was good; infinite where it never was.
        epochs_pooled: the same where good is judged by the error pooled over all settings.
        kept: whether the study's final choice is good.
        total: epochs of the whole study.
    """

    epochs: float
    epochs_pooled: float
    kept: bool
    total: int


def replay(plan: TunePlan, curves: Curves, number: int) -> Replay:
    """Run the study ``plan.search`` once on ``curves``; ``number`` picks its draws and its seeds."""
    search = replace(plan.search, name=f"{plan.search.section.loss.name}-{number}")
    drawn = np.random.default_rng(number).permutation(curves.seeds)
    seeds = {unit.seed: int(drawn[i]) for i, unit in enumerate(search.units)}
    good, good_pooled = (curves.good(len(search.units), pooled=pooled) for pooled in (False, True))
    spent, reached, reached_pooled = 0, math.inf, math.inf

    def look_up(section: Any, dataset: Any, *, seed: int, metric: str, reporter: Any, checkpoint: Any) -> Any:
        nonlocal spent
        del dataset, checkpoint
        curve = curves.values[curves.nearest(section.loss.params.model_dump())][seeds[seed]]
        for epoch, value in enumerate(curve, 1):
            spent += 1
            reporter.epoch({"epoch": epoch, f"val_{metric}": float(value)}, best=bool(value == curve[:epoch].max()))
        best = int(curve.argmax())
        return SimpleNamespace(best_value=float(curve[best]), best_epoch=best + 1, history=[{}] * len(curve))

    shared = InMemory()
    with mock.patch.object(trials, "fit", look_up):
        study = studies.open_study(shared, search)
        while (trial := studies.claim(shared, study, search, "replay", retries=0)) is not None:
            trials.run_trial(plan, search, trial, TrialLog())
            chosen = _chosen(study, curves)
            reached = min(reached, spent if chosen in good else math.inf)
            reached_pooled = min(reached_pooled, spent if chosen in good_pooled else math.inf)
    return Replay(reached, reached_pooled, chosen in good, spent)


def _chosen(study: Any, curves: Curves) -> Setting | None:
    """The setting of the grid that the study would choose now; None before a trial has come to its end."""
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        return None
    return curves.nearest(best_trials(study)[0].params)


class InMemory(SharedStorage):
    """A storage for one process: where a study is kept changes nothing that it finds."""

    one_machine = True
    name = "memory"

    def __init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage = optuna.storages.InMemoryStorage()

    def lock(self, what: str) -> AbstractContextManager[None]:
        del what
        return nullcontext()

    def alive(self, worker: str) -> AbstractContextManager[None]:
        del worker
        return nullcontext()

    def dead_trials(self, study: optuna.Study) -> list[int]:
        del study
        return []


class ReplayPlan(TunePlan):
    """A plan whose images nobody looks at."""

    def open_dataset(self, fold: int | None) -> Any:
        del fold


def make_product_plan(task: Task, folder: Path, epochs: int, **tune: Any) -> Any:
    """The plan that ``raregrade tune`` makes for ``task`` by params.yaml, with what the grid does not vary fixed.

    It needs a dataset, whose images nobody looks at: a tiny one is drawn.
    """
    small = replace(task, phantom={**task.phantom, "patients": 60, "max_images_per_patient": 1})
    dataset = prepare_phantom(small, folder)
    params = load_params(PARAMS, [])
    loss = params.losses[task.loss]
    space = {task.loss: {name: getattr(loss.params, name) for name in loss.params.search() if name not in task.grid[0]}}
    section = TuneSection(
        tune=StudyConfig.model_validate({"space": space, **tune}),
        objective=task.metric,
        train=params.train.model_copy(update={"epochs": epochs}),
        loss=loss,
        task=task.labels["task"],
    )
    tracking = Tracking(uri="none", experiment="benchmark")
    plan = make_plan(section, dataset.root, storage=StudyStorage(), tracking=tracking, checkpoints=None)
    return ReplayPlan(**vars(plan))


def _variants(plan: TunePlan) -> dict[str, tuple[TunePlan, AbstractContextManager[Any]]]:
    """What is replayed: by name the plan, and what is changed while it runs."""

    def create_random(search: StudyPlan, number: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=zlib.crc32(f"{search.name}/{number}".encode()))

    published = tuple(start for start in plan.search.starts if start.source == "paper")
    unpruned = replace(plan.search, starts=(), config=None)
    at_random = mock.patch.object(studies, "create_sampler", create_random)
    return {
        "study": (plan, nullcontext()),
        "study, published settings first": (
            replace(plan, search=replace(plan.search, starts=published)),
            nullcontext(),
        ),
        "study, nothing first": (replace(plan, search=replace(plan.search, starts=())), nullcontext()),
        "random search, pruned": (replace(plan, search=replace(plan.search, starts=())), at_random),
        "random search": (replace(plan, search=unpruned), at_random),
    }


def replay_all(table: Path, number: int) -> bool:
    """Replay ``number`` studies of each kind, print a table, and return whether the bar holds."""
    print(f"{os.cpu_count()} cores\n")
    print(
        "| loss | search | epochs / grid until good | quartiles | never good | good in the end | all epochs / grid ",
        end="",
    )
    print("| until good by the pooled error |\n|---|---|---|---|---|---|---|---|")
    holds, notes = True, []
    for task in TASKS.values():
        curves = read_curves(table, task)
        with tempfile.TemporaryDirectory() as folder:
            plan = make_product_plan(task, Path(folder), curves.epochs)
        repeats = len(plan.search.units)
        grid = len(curves.values) * repeats * curves.epochs
        for name, (variant, change) in _variants(plan).items():
            with change:
                runs = [replay(variant, curves, i) for i in range(1, number + 1)]
            ratio = statistics.median(run.epochs for run in runs) / grid
            bar = f" (≤ {BAR})" if name == "study" else ""
            print(f"| {task.loss} | {name} | {_ratio(ratio)}{bar} | {_spread(runs, grid)} |", flush=True)
            holds &= name != "study" or ratio <= BAR
        good = _listed(curves.good(repeats))
        notes.append(
            f"{task.loss}: {len(curves.values)} settings of {' × '.join(curves.names)}, {curves.epochs} epochs, "
            f"{repeats} of {len(curves.seeds)} seeds per trial, {plan.search.trials} trials; good are {good} "
            f"(by the pooled error {_listed(curves.good(repeats, pooled=True))})"
        )
    print("\n" + "\n".join(notes))
    return holds


def _spread(runs: list[Replay], grid: int) -> str:
    ratios = sorted(run.epochs / grid for run in runs)
    quartiles = f"{_ratio(ratios[len(ratios) // 4])} to {_ratio(ratios[3 * len(ratios) // 4])}"
    never, kept = sum(math.isinf(ratio) for ratio in ratios), sum(run.kept for run in runs)
    total = statistics.median(run.total for run in runs) / grid
    pooled = statistics.median(run.epochs_pooled for run in runs) / grid
    return f"{quartiles} | {never} of {len(runs)} | {kept} of {len(runs)} | {total:.2f} | {_ratio(pooled)}"


def _listed(settings: set[Setting]) -> str:
    return ", ".join(" × ".join(f"{value:g}" for value in setting) for setting in sorted(settings))


def _ratio(ratio: float) -> str:
    return "never" if math.isinf(ratio) else f"{ratio:.2f}"
