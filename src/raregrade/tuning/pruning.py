"""Which trials are stopped before their end.

A trial reports two kinds of steps, which this module keeps apart: the epochs of its first repeat, of which Hyperband
(arXiv 1603.06560) stops the slow ones, and then its repeats (seeds or folds), which the Wilcoxon signed-rank test holds
against those of the best trial. Epochs of later repeats are not compared: a trial that lasted through the first
repeat is one of the good ones, and what decides among these is the mean over the repeats.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, WilcoxonPruner
from optuna.trial import FrozenTrial

from raregrade.config import StudyConfig


def create_pruner(config: StudyConfig, epochs: int) -> BasePruner:
    """The pruner of ``config`` for trials whose repeats have ``epochs`` epochs each."""
    return RepeatsPruner(
        epochs,
        hyperband=config.pruner in ("both", "hyperband"),
        wilcoxon=config.pruner in ("both", "wilcoxon"),
        min_epochs=min(config.min_epochs, epochs),
        reduction_factor=config.reduction_factor,
        p_threshold=config.wilcoxon_p,
    )


def repeat_step(repeat: int, epochs: int) -> int:
    """The step under which the value of repeat ``repeat`` (from 0) is reported: behind the steps of the epochs."""
    return epochs + 1 + repeat


class RepeatsPruner(BasePruner):  # type: ignore[misc]
    """Hyperband on the epochs of the first repeat, Wilcoxon on the repeats.

    Not an ``optuna.pruners.HyperbandPruner`` itself: for that one Optuna lets the sampler learn from the trials of one
    bracket alone, which are too few in a study of a few dozen.

    Args:
        epochs: of a repeat.
        hyperband: compare epochs.
        wilcoxon: compare repeats; with fewer than four of them no p-value falls below 0.1.
        min_epochs: Hyperband's minimal resource.
        reduction_factor: of Hyperband.
        p_threshold: of the Wilcoxon test, one-sided.
    """

    def __init__(
        self,
        epochs: int,
        *,
        hyperband: bool,
        wilcoxon: bool,
        min_epochs: int,
        reduction_factor: int,
        p_threshold: float,
    ) -> None:
        self.epochs = epochs
        self.hyperband = HyperbandPruner(min_epochs, epochs, reduction_factor) if hyperband else None
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
