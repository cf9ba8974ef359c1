"""Which trials are stopped before their end.

A trial reports two kinds of steps, which this module keeps apart: the epochs of its first repeat that its value is made
of, of which Hyperband (arXiv 1603.06560) stops the slow ones, and then its repeats (seeds or folds), which the Wilcoxon
signed-rank test holds against those of the best trial. Epochs of later repeats are not compared: a trial that lasted
through the first repeat is one of the good ones, and what decides among these is the mean over the repeats.

The value of a loss that trains in stages is the best epoch of its last stage. Epochs before that stage say little of
it, so they are not reported, and Hyperband counts its epochs from where the last stage begins.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState

from raregrade.config import StudyConfig
from raregrade.config.tuning import uses_hyperband, uses_wilcoxon

# How Optuna's successive halving names the values with which a trial passed its rungs.
RUNG = "completed_rung_"


def create_pruner(config: StudyConfig, epochs: int, judged: int | None = None) -> BasePruner:
    """The pruner of ``config`` for trials whose repeats have ``epochs`` epochs each.

    Args:
        config: what stops trials, and when.
        epochs: of a repeat.
        judged: how many of these, the last ones, a trial's value is made of; None is all.
    """
    judged = epochs if judged is None else judged
    return RepeatsPruner(
        epochs,
        judged=judged,
        hyperband=uses_hyperband(config) and judged > 0,
        wilcoxon=uses_wilcoxon(config),
        min_epochs=config.min_epochs,
        reduction_factor=config.reduction_factor,
        p_threshold=config.wilcoxon_p,
    )


def repeat_step(repeat: int, epochs: int) -> int:
    """The step under which the value of repeat ``repeat`` (from 0) is reported: behind the steps of the epochs."""
    return epochs + 1 + repeat


def root(trial: FrozenTrial) -> int:
    """The number of the trial that ``trial`` goes on with, through any number of dead workers; else its own."""
    return int(trial.user_attrs.get("root", trial.number))


class RepeatsPruner(BasePruner):  # type: ignore[misc]
    """Hyperband on the epochs of the first repeat, Wilcoxon on the repeats.

    Not an ``optuna.pruners.HyperbandPruner`` itself: for that one Optuna lets the sampler learn from the trials of one
    bracket alone, which are too few in a study of a few dozen.

    Args:
        epochs: of a repeat.
        judged: those of them that are reported.
        hyperband: compare epochs.
        wilcoxon: compare repeats; with fewer than five of them no p-value falls below 0.1 while it saves a repeat.
        min_epochs: Hyperband's minimal resource, at most ``judged``.
        reduction_factor: of Hyperband.
        p_threshold: of the Wilcoxon test, one-sided.
    """

    def __init__(
        self,
        epochs: int,
        *,
        judged: int,
        hyperband: bool,
        wilcoxon: bool,
        min_epochs: int,
        reduction_factor: int,
        p_threshold: float,
    ) -> None:
        self.epochs = epochs
        self.hyperband = _HyperbandOfRoots(min_epochs, judged, reduction_factor) if hyperband else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.wilcoxon = WilcoxonPruner(p_threshold=p_threshold) if wilcoxon else None

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop ``trial`` after the step that it reported last."""
        step = trial.last_step
        if step is None:
            return False
        if step <= self.epochs:
            # The last epoch of the first repeat saves nothing any more where it is the only one.
            return self.hyperband is not None and bool(self.hyperband.prune(study, trial))
        if self.wilcoxon is None:
            return False
        return bool(self.wilcoxon.prune(_RepeatsOfBest(study, self.epochs), _repeats_only(trial, self.epochs)))


class _HyperbandOfRoots(HyperbandPruner):  # type: ignore[misc]
    """Hyperband to which a trial and the one that goes on with it after a worker's death are one.

    A bracket is drawn by a trial's number, and a successor has another one: it would be judged at epochs of another
    bracket, and beside the value that its dead predecessor left there.
    """

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if trial.state == TrialState.FAIL:
            return -1
        as_root = copy.copy(trial)
        as_root.number = root(trial)
        return int(super()._get_bracket_id(study, as_root))


class _RepeatsOfBest:
    """Of a study, what ``WilcoxonPruner`` asks for, with the repeats of the best trial alone."""

    def __init__(self, study: optuna.Study, epochs: int) -> None:
        self._study = study
        self._epochs = epochs

    @property
    def direction(self) -> Any:
        return self._study.direction

    @property
    def best_trial(self) -> FrozenTrial:
        return _repeats_only(self._study.best_trial, self._epochs)


def _repeats_only(trial: FrozenTrial, epochs: int) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.intermediate_values = {step: value for step, value in trial.intermediate_values.items() if step > epochs}
    return shown
