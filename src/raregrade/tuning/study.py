"""Studies whose trials are reserved before they start, so that the asked number is met and never passed.

A study is created with all of its trials waiting. A worker takes a waiting one; the trial of a worker that died is
failed and put back as a new waiting one, with all that it had found out. So at any time the trials that are finished,
running or waiting are as many as were asked for, whoever dies when. All changes of that kind happen under one lock.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from raregrade.config import StudyConfig, TrainSection
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.config.tuning import judged_epochs
from raregrade.errors import RaregradeError
from raregrade.schema import Choice, IntRange, Scalar, Space
from raregrade.tuning.pruning import RUNG, create_pruner, root
from raregrade.tuning.storage import SharedStorage

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_OPEN = (TrialState.WAITING, TrialState.RUNNING)
# What a trial that takes the place of a dead one inherits, beside parameters and reported values: the rungs, too, so
# that Hyperband does not judge it at an epoch where the others were not judged.
_INHERITED = ("repeat_", "unit", "source", "run_id")
_INHERITED_OF_SYSTEM = ("fixed_params", RUNG)

# Why a trial failed: its worker is gone, or met an error that nobody foresaw.
DIED, BROKE_OFF = "died", "error: "
_MOST_REASONS = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unit:
    """One training of a trial: its seed, and the fold that validates (None: the fixed split)."""

    seed: int
    fold: int | None = None


@dataclass(frozen=True)
class Start:
    """Values to try early, and where they come from: ``default``, ``paper`` or ``warm_start``."""

    values: Mapping[str, Scalar]
    source: str


@dataclass(frozen=True)
class StudyPlan:
    """One Optuna study.

    Attributes:
        name: made from all that its results depend on.
        section: what is trained, with what is fixed in place.
        spaces: what is searched; empty where the same settings are repeated.
        trials: how many are to be finished.
        units: the trainings whose mean is a trial's value.
        unit_each: every trial has one unit of its own instead: ``units[number]``.
        starts: tried before anything is sampled.
        metric: the objective, on validation.
        config: pruning; None stops no trial.
    """

    name: str
    section: TrainSection
    trials: int
    units: tuple[Unit, ...]
    metric: str
    spaces: Mapping[str, Space] = field(default_factory=dict)
    unit_each: bool = False
    starts: tuple[Start, ...] = ()
    config: StudyConfig | None = None

    @property
    def direction(self) -> str:
        return "minimize" if self.metric in LOWER_IS_BETTER else "maximize"


@dataclass(frozen=True)
class Counts:
    """Trials of a study by what became of them."""

    complete: int
    pruned: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        return self.complete + self.pruned

    @property
    def open(self) -> int:
        return self.running + self.waiting


def open_study(shared: SharedStorage, plan: StudyPlan, *, retries: int | None = None) -> optuna.Study:
    """The study of ``plan``, created with all its trials where there is none, and brought to the asked number.

    A trial that failed more than ``retries`` times is given up, see ``claim``; None gives none up.
    """
    with shared.lock(plan.name):
        study = _create_or_load(shared, plan)
        _put_back_failed(study, retries=retries)
        _reserve(study, plan)
    return study


def claim(
    shared: SharedStorage, study: optuna.Study, plan: StudyPlan, worker: str, *, retries: int
) -> optuna.Trial | None:
    """Take a waiting trial for ``worker``; None where none waits.

    A trial whose workers died, or broke off with an error, more than ``retries`` times ends as pruned, with the reason.
    """
    storage = shared.storage
    with shared.lock(plan.name):
        _fail_dead(shared, study)
        _put_back_failed(study, retries=retries)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting:
            return None
        chosen = waiting[0]
        # Before it runs: a process that is killed right after would leave a running trial of nobody.
        storage.set_trial_user_attr(chosen._trial_id, "worker", worker)
        shared.beat(chosen._trial_id)
        storage.set_trial_state_values(chosen._trial_id, TrialState.RUNNING)
    study.sampler = create_sampler(plan, root(chosen))
    return optuna.Trial(study, chosen._trial_id)


def give_back(shared: SharedStorage, trial: optuna.Trial, plan: StudyPlan, reason: str) -> None:
    """Let another worker take ``trial``, which this one cannot finish; ``reason`` is kept with it."""
    with shared.lock(plan.name):
        frozen = shared.storage.get_trial(trial._trial_id)
        if not frozen.state.is_finished():
            shared.storage.set_trial_user_attr(trial._trial_id, "ended", reason)
            shared.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def create_sampler(plan: StudyPlan, number: int) -> BaseSampler:
    """TPE, drawing from the study's name and the trial's number: a study that goes on draws what it would have drawn.

    A fourth of the trials, at most ten, explore before it starts to learn.
    """
    seed = zlib.crc32(f"{plan.name}/{number}".encode())
    return TPESampler(seed=seed, n_startup_trials=max(1, min(10, plan.trials // 4)))


def suggest(trial: optuna.Trial, spaces: Mapping[str, Space]) -> dict[str, Scalar]:
    """A value for each of ``spaces``."""
    values: dict[str, Scalar] = {}
    for name, space in spaces.items():
        if isinstance(space, Choice):
            values[name] = trial.suggest_categorical(name, space.choices)
        elif isinstance(space, IntRange):
            values[name] = trial.suggest_int(name, space.low, space.high, log=space.log)
        else:
            values[name] = trial.suggest_float(name, space.low, space.high, log=space.log)
    return values


def counts(study: optuna.Study) -> Counts:
    """How many trials of ``study`` are in which state; those that failed are not counted, others took their place."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return Counts(
        complete=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        running=states.count(TrialState.RUNNING),
        waiting=states.count(TrialState.WAITING),
    )


def best_trials(study: optuna.Study, first: int | None = None) -> list[FrozenTrial]:
    """The complete trials, best first; the earlier of two that are equal.

    Args:
        study: where to look.
        first: how many finished trials count, from the first on: another loss that shares the study may have asked for
            more. None is all of them.

    Raises:
        RaregradeError: there is none; says what became of the trials.
    """
    finished = sorted(study.get_trials(deepcopy=False, states=FINISHED), key=root)[:first]
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    if not complete:
        raise RaregradeError(
            f"no trial of {study.study_name} came to its end. {_what_ended(finished)} Change what made them end, which "
            "begins another study; or, where it was a passing shortage, run `raregrade tune --fresh`."
        )
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return sorted(complete, key=lambda trial: (sign * trial.value, trial.number))


def delete_study(shared: SharedStorage, plan: StudyPlan) -> None:
    """Remove the study of ``plan``, if there is one.

    Raises:
        RaregradeError: a living worker is at work on it.
    """
    with shared.lock(plan.name):
        try:
            study = optuna.load_study(study_name=plan.name, storage=shared.storage)
        except KeyError:
            return
        dead = shared.dead_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if any(trial._trial_id not in dead for trial in running):
            raise RaregradeError(
                f"the study {plan.name} is being worked on (or its worker has died just now); stop the workers, or "
                "wait until they are done, and start anew then"
            )
        optuna.delete_study(study_name=plan.name, storage=shared.storage)


def _create_or_load(shared: SharedStorage, plan: StudyPlan) -> optuna.Study:
    pruner = optuna.pruners.NopPruner()
    if plan.config is not None:
        epochs, loss = plan.section.train.epochs, plan.section.loss
        pruner = create_pruner(plan.config, epochs, judged_epochs(plan.section.train, loss))
    study = optuna.create_study(
        study_name=plan.name,
        storage=shared.storage,
        direction=plan.direction,
        pruner=pruner,
        load_if_exists=True,
    )
    known = study.user_attrs
    about = {"kind": plan.section.loss.kind, "loss": plan.section.loss.name, "objective": plan.metric}
    for key, value in about.items():
        if key not in known:
            study.set_user_attr(key, value)
    return study


def _reserve(study: optuna.Study, plan: StudyPlan) -> None:
    """Add waiting trials up to the asked number; withdraw those that are too many and have not begun."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state in (*FINISHED, *_OPEN)]
    if plan.unit_each:
        present = {t.user_attrs["unit"] for t in trials}
        for unit in range(plan.trials):
            if unit not in present:
                study.enqueue_trial({}, user_attrs={"unit": unit})
        return
    first = not study.get_trials(deepcopy=False)
    starts = list(plan.starts[: plan.trials]) if first else []
    for start in starts:
        study.enqueue_trial(dict(start.values), user_attrs={"source": start.source})
    for _ in range(plan.trials - len(trials) - len(starts)):
        study.enqueue_trial({}, user_attrs={"source": "sampler"})
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    surplus = min(len(trials) - plan.trials, len(waiting))
    for trial in waiting[len(waiting) - surplus :] if surplus > 0 else ():
        study._storage.set_trial_user_attr(trial._trial_id, "ended", "withdrawn")
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _fail_dead(shared: SharedStorage, study: optuna.Study) -> None:
    for trial_id in shared.dead_trials(study):
        # One that was only thought dead may come to its end at this very moment: then it counts.
        with contextlib.suppress(UpdateFinishedTrialError):
            shared.storage.set_trial_user_attr(trial_id, "ended", DIED)
            shared.storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _what_ended(trials: Sequence[FrozenTrial]) -> str:
    """How many trials ended for which reason, the most frequent first."""
    reasons = Counter(str(trial.user_attrs.get("ended", "stopped")) for trial in trials)
    shown = [f"{number} of {len(trials)}: {reason}." for reason, number in reasons.most_common(_MOST_REASONS)]
    return " ".join(shown)


def _put_back_failed(study: optuna.Study, *, retries: int | None) -> None:
    """A waiting trial for each failed one that nobody has taken the place of yet; one that is given up is pruned.

    Looked at anew each time, so a process that dies between failing a trial and putting it back loses nothing.
    """
    trials = study.get_trials(deepcopy=False)
    followed = {t.user_attrs.get("retry_of") for t in trials}
    failed = [t for t in trials if t.state == TrialState.FAIL and t.user_attrs.get("ended") != "withdrawn"]
    for trial in failed:
        if trial.number in followed:
            continue
        ended = str(trial.user_attrs.get("ended", DIED))
        deaths = int(trial.user_attrs.get("deaths", 0)) + ended.startswith((DIED, BROKE_OFF))
        given_up = retries is not None and deaths > retries
        kept = {k: v for k, v in trial.user_attrs.items() if k.startswith(_INHERITED)}
        if given_up:
            kept["ended"] = _given_up(ended, deaths)
        study.add_trial(
            optuna.create_trial(
                state=TrialState.PRUNED if given_up else TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=trial.intermediate_values,
                user_attrs={**kept, "root": root(trial), "retry_of": trial.number, "deaths": deaths},
                system_attrs={k: v for k, v in trial.system_attrs.items() if k.startswith(_INHERITED_OF_SYSTEM)},
            )
        )
        if given_up:
            _logger.warning("trial %d of %s: %s", trial.number, study.study_name, kept["ended"])
        else:
            _logger.info("trial %d of %s goes on as another one", trial.number, study.study_name)


def _given_up(ended: str, deaths: int) -> str:
    if ended.startswith(BROKE_OFF):
        return f"given up after {deaths} tries, the last with an {ended}"
    return f"given up: its worker died {deaths} times, most often because memory ran out; fewer workers need less"
