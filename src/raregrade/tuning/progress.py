"""What a person sees while a study runs: lines on standard error, within a trial and after each, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from statistics import fmean

import optuna
from optuna.trial import TrialState

from raregrade.tuning.plan import TunePlan
from raregrade.tuning.study import StudyPlan, counts

# Trials of seconds are told by their outcome alone.
_SECONDS_BETWEEN_LINES = 10.0


class TrialProgress:
    """Says now and then how far the training of a trial is."""

    def __init__(self, title: str, epochs: int) -> None:
        self.title = title
        self.epochs = epochs
        self.value = ""
        self._told = time.monotonic()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """``epoch`` epochs are done, and ``step`` of the next one's ``steps``."""
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            say(f"{self.title}: epoch {epoch + 1}/{self.epochs}, step {step}/{steps}{self.value}")

    def epoch(self, metric: str, value: float) -> None:
        """An epoch was validated."""
        self.value = f"  val {metric} {value:.4f}"


class StudyProgress:
    """What one worker tells of the trials that it finishes, and the time left as it follows from them."""

    def __init__(self, plan: TunePlan) -> None:
        self.plan = plan
        self._seconds: list[float] = []  # of each trial
        self._seconds_of_units: list[float] = []  # of each training of complete trials
        self._workers = 1  # at work together, as far as was seen

    def finished(
        self,
        study_plan: StudyPlan,
        study: optuna.Study,
        number: int,
        *,
        state: TrialState,
        seconds: float,
        others: Iterable[optuna.Study],
    ) -> None:
        """Trial ``number`` of ``study`` ended after ``seconds``; ``others`` are studies of the same phase."""
        trial = study.get_trials(deepcopy=False)[number]
        if state == TrialState.COMPLETE:
            outcome = f"{study_plan.metric} {trial.value:.4f}"
            units = 1 if study_plan.unit_each else len(study_plan.units)
            self._seconds_of_units.append(seconds / units)
        elif state == TrialState.PRUNED:
            outcome = str(trial.user_attrs.get("ended", "stopped"))
        else:
            outcome = "was taken over by another worker"
        self._seconds.append(seconds)
        values = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items())
        done = f"{study_plan.name}: {counts(study).finished}/{study_plan.trials}  {outcome}  {values}".rstrip()
        left = timedelta(seconds=round(self._seconds_left((study, *others), confirming=study_plan.unit_each)))
        say(f"{done}  ({seconds:.0f} s; about {left} left)")

    def _seconds_left(self, studies: Iterable[optuna.Study], *, confirming: bool) -> float:
        """For the open trials as long as trials took so far, and for confirmations to come as their trainings took."""
        found = [counts(study) for study in studies]
        left = sum(each.open for each in found) * fmean(self._seconds)
        if not confirming:
            arms = 2 * len(self.plan.searches)
            left += arms * len(self.plan.confirm_units) * fmean(self._seconds_of_units or self._seconds)
        self._workers = max(self._workers, 1 + sum(each.running for each in found))
        return left / self._workers


def say(line: str) -> None:
    """Print ``line`` on standard error, whole, at once."""
    print(line, file=sys.stderr, flush=True)
