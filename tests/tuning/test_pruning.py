"""Epochs of the first repeat and repeats are judged apart from each other."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from raregrade.config import StudyConfig
from raregrade.tuning.pruning import create_pruner, repeat_step

EPOCHS = 9


def make(pruner: str, **settings: object) -> optuna.Study:
    config = StudyConfig(pruner=pruner, min_epochs=1, **settings)  # type: ignore[arg-type]
    return optuna.create_study(direction="maximize", study_name="pruned", pruner=create_pruner(config, EPOCHS))


def run(study: optuna.Study, level: float, repeats: int = 1) -> TrialState:
    """A trial whose epochs climb to ``level`` and whose repeats lie around it."""
    trial = study.ask()
    for epoch in range(1, EPOCHS + 1):
        trial.report(level * epoch / EPOCHS, epoch)
        if epoch < EPOCHS and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return TrialState.PRUNED
    for repeat in range(repeats):
        trial.report(level + 0.001 * repeat, repeat_step(repeat, EPOCHS))
        if repeat + 1 < repeats and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return TrialState.PRUNED
    study.tell(trial, level)
    return TrialState.COMPLETE


def test_hyperband_stops_slow_trials_and_lets_good_ones_through() -> None:
    study = make("hyperband")
    for _ in range(9):
        run(study, 0.5)
    slow = [run(study, 0.1) for _ in range(9)]
    assert slow.count(TrialState.PRUNED) >= 6
    assert run(study, 0.9) == TrialState.COMPLETE


def test_without_a_pruner_nothing_is_stopped() -> None:
    study = make("none")
    run(study, 0.9, repeats=8)
    assert [run(study, 0.1, repeats=8) for _ in range(4)] == [TrialState.COMPLETE] * 4


def test_wilcoxon_stops_a_trial_that_is_worse_repeat_by_repeat() -> None:
    study = make("wilcoxon")
    assert run(study, 0.5, repeats=8) == TrialState.COMPLETE
    assert run(study, 0.4, repeats=8) == TrialState.PRUNED
    # Four repeats that are all worse are the first to have a one-sided p below 0.1.
    assert study.trials[1].last_step == repeat_step(3, EPOCHS)
    assert run(study, 0.6, repeats=8) == TrialState.COMPLETE


def test_wilcoxon_does_not_look_at_epochs() -> None:
    """A trial that climbs slowly and ends better is worse at every epoch, and no worse in any repeat."""
    study = make("wilcoxon")
    run(study, 0.5, repeats=3)
    trial = study.ask()
    for epoch in range(1, EPOCHS + 1):
        trial.report(0.01 * epoch, epoch)
        assert not trial.should_prune()


@pytest.mark.parametrize("pruner", ["both", "hyperband", "wilcoxon"])
def test_the_first_trial_is_never_stopped(pruner: str) -> None:
    assert run(make(pruner), 0.3, repeats=5) == TrialState.COMPLETE


def test_few_epochs_do_not_break_hyperband() -> None:
    study = optuna.create_study(pruner=create_pruner(StudyConfig(min_epochs=5), 1))
    trial = study.ask()
    trial.report(0.5, 1)
    assert not trial.should_prune()
