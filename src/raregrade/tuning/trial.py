"""One trial: train its repeats, report what they come to, stop where the pruner says so.

Whatever kills the process, nothing that is finished is trained twice: an epoch is in the checkpoint, which is named by
settings, seed and fold and not by the trial, and a finished repeat in the trial, whose successor inherits it.

A trial that cannot be trained (too little memory, a loss that refuses its parameters) ends as pruned, with the reason:
it tells the sampler that such values are bad, and the study goes on.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from raregrade import __version__
from raregrade.atomic import WriteError
from raregrade.config import TrainSection
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.config.training import share_epochs
from raregrade.config.tuned import with_values
from raregrade.errors import DataError, InterruptedRunError, ModelError, UserError
from raregrade.tracking.studies import TrialLog
from raregrade.training.checkpoint import open_checkpoint, run_key
from raregrade.training.loop import fit
from raregrade.training.reporter import Reporter
from raregrade.training.result import TrainingDivergedError
from raregrade.tuning.plan import TunePlan
from raregrade.tuning.progress import TrialProgress
from raregrade.tuning.pruning import repeat_step
from raregrade.tuning.study import StudyPlan, Unit, suggest

# What is no fault of a trial's values: the disk, the dataset, the weights to start from.
_NOT_OF_THE_TRIAL = (WriteError, DataError, ModelError)


class PrunedError(Exception):
    """The trial ends before its end; says why."""


def run_trial(plan: TunePlan, study_plan: StudyPlan, trial: optuna.Trial, log: TrialLog) -> TrialState:
    """Train ``trial`` and tell its study what it came to.

    A training that diverges or cannot be carried out ends its trial as pruned: such settings are bad, and say so to the
    sampler.

    Returns:
        COMPLETE or PRUNED; FAIL where another worker has taken the trial over meanwhile, and the outcome is dropped.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM arrived; epochs and repeats that are finished are kept.
    """
    values = suggest(trial, study_plan.spaces)
    try:
        section = with_values(study_plan.section, values)
    except UserError as err:
        return _tell(trial, TrialState.PRUNED, None, _impossible(err), log)
    log.log_params(
        {
            "study": study_plan.name,
            "kind": section.loss.kind,
            "loss": section.loss.params.model_dump(mode="json"),
            "train": section.train.model_dump(mode="json", include={"lr", "weight_decay", "batch_size", "epochs"}),
        }
    )
    run = _Run(plan, study_plan, section, trial, log)
    try:
        results = [run.repeat(repeat, unit) for repeat, unit in enumerate(_units(study_plan, trial))]
    except PrunedError as err:
        return _tell(trial, TrialState.PRUNED, None, str(err), log)
    value = math.fsum(results) / len(results)
    log.log_metrics({study_plan.metric: value})
    return _tell(trial, TrialState.COMPLETE, value, "", log)


def _impossible(err: UserError) -> str:
    """The problem without the advice, since a change of params.yaml would begin another study."""
    return f"cannot be trained: {_problem(err)}"


def _problem(err: Exception) -> str:
    """The first sentence of an error, without its full stop."""
    return re.split(r"\.\s+(?=[A-Z])", " ".join(str(err).split()), maxsplit=1)[0].rstrip(".")


def _units(study_plan: StudyPlan, trial: optuna.Trial) -> Sequence[Unit]:
    if study_plan.unit_each:
        return (study_plan.units[int(trial.user_attrs["unit"])],)
    return study_plan.units


def _tell(trial: optuna.Trial, state: TrialState, value: float | None, reason: str, log: TrialLog) -> TrialState:
    if reason:
        trial.set_user_attr("ended", reason)
    told = trial.study.tell(trial, value, state=state, skip_if_finished=True)
    log.close(told.state.name, reason)
    return told.state


@dataclass(frozen=True)
class _Run:
    """A trial at work: ``section`` is what it trains."""

    plan: TunePlan
    study_plan: StudyPlan
    section: TrainSection
    trial: optuna.Trial
    log: TrialLog

    def repeat(self, repeat: int, unit: Unit) -> float:
        """The value of one repeat, trained unless the trial has it already; reported to the pruner."""
        name, epochs = f"repeat_{repeat}", self.section.train.epochs
        known = self.trial.user_attrs.get(name)
        reporter = _TrialReporter(self, repeat=repeat)
        if known is None:
            known = self._train(unit, reporter)
            self.trial.set_user_attr(name, known)
        value, repeats = float(known["value"]), len(self.study_plan.units)
        if self.study_plan.config is not None and repeats > 1:
            reporter.report(value, repeat_step(repeat, epochs))
            if repeat + 1 < repeats and self.trial.should_prune():
                raise PrunedError(f"worse than the best trial over {repeat + 1} repeats")
        return value

    def _train(self, unit: Unit, reporter: _TrialReporter) -> dict[str, float]:
        metric = self.study_plan.metric
        key = run_key(
            {
                "tune": self.section.model_dump(mode="json"),
                "metric": metric,
                "data": self.plan.identity.content_hash,
                "seed": unit.seed,
                "fold": unit.fold,
                "version": __version__,
            }
        )
        dataset = self.plan.open_dataset(unit.fold)
        started = time.monotonic()
        with open_checkpoint(self.plan.checkpoints, key) as checkpoint:
            try:
                result = fit(
                    self.section, dataset, seed=unit.seed, metric=metric, reporter=reporter, checkpoint=checkpoint
                )
            except _NOT_OF_THE_TRIAL:
                raise
            except (PrunedError, TrainingDivergedError, UserError) as err:
                checkpoint.remove()
                self.trial.set_user_attr("unfinished_epochs", reporter.trained)
                if isinstance(err, PrunedError):
                    raise
                reason = f"diverged: {_problem(err)}" if isinstance(err, TrainingDivergedError) else _impossible(err)
                raise PrunedError(reason) from err
            checkpoint.remove()
        return {
            "value": result.best_value,
            "epoch": result.best_epoch,
            "epochs": len(result.history),
            "resumed_at": reporter.resumed_at,
            "seconds": round(time.monotonic() - started, 2),
        }


class _TrialReporter(Reporter):
    """Hands the epochs of a repeat to the log, and to the pruner those of the first that its value is made of.

    These are the epochs of the last stage of training, counted from its beginning.

    Attributes:
        trained: epochs that are behind the repeat.
    """

    def __init__(self, run: _Run, *, repeat: int) -> None:
        self.trial = run.trial
        self.log = run.log
        self.metric = run.study_plan.metric
        epochs = run.section.train.epochs
        self.judged = share_epochs(epochs, run.section.loss.params.stage_shares)[-1]
        self.before = epochs - self.judged
        self.trained = 0
        self.repeat = repeat
        self.prune = run.study_plan.config is not None and repeat == 0
        self.resumed_at = 0
        repeats = len(run.study_plan.units)
        part = f", repeat {repeat + 1}/{repeats}" if repeats > 1 and not run.study_plan.unit_each else ""
        self.progress = TrialProgress(f"{run.study_plan.name}: trial {run.trial.number + 1}{part}", epochs)
        self._best = math.nan
        # Asked for once: a trial that took the place of a dead one knows what that one reported.
        self._reported = set(self.trial.storage.get_trial(self.trial._trial_id).intermediate_values)

    def started(self, *, resumed_at: int, **_: object) -> None:
        """Remember whether a checkpoint was there."""
        self.resumed_at = resumed_at

    def restored(self, history: Sequence[dict[str, float]]) -> None:
        """Report what a worker that died could not, without judging it: its time is spent."""
        for row in history:
            self._note(row)

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:
        del images, loss
        self.progress.step(epoch, step, steps)

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        del best  # the trial's own best is kept here, also of epochs that a dead worker trained
        epoch = int(row["epoch"])
        if f"val_{self.metric}" in row:
            self.progress.epoch(self.metric, row[f"val_{self.metric}"])
        self.log.log_epoch({k: v for k, v in row.items() if k != "epoch"}, epoch, self.repeat)
        new = self._note(row)
        if self.prune and new and epoch < self.before + self.judged and self.trial.should_prune():
            raise PrunedError(f"stopped after epoch {epoch} of {self.before + self.judged}")

    def report(self, value: float, step: int) -> bool:
        """Report ``value`` unless ``step`` is known already; whether it was new."""
        if step in self._reported:
            return False
        self._reported.add(step)
        self.trial.report(value, step)
        return True

    def _note(self, row: dict[str, float]) -> bool:
        self.trained = int(row["epoch"])
        step = self.trained - self.before
        if step < 1:
            return False
        value = row[f"val_{self.metric}"]
        better = min if self.metric in LOWER_IS_BETTER else max
        self._best = value if math.isnan(self._best) else better(self._best, value)
        return self.prune and self.report(self._best, step)


def interrupted(err: BaseException) -> bool:
    """Whether ``err`` says that somebody asked this process to stop."""
    return isinstance(err, InterruptedRunError | KeyboardInterrupt | SystemExit)
