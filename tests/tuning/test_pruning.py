"""Epochs of the first repeat and repeats are judged apart from each other."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from raregrade.config import LossChoice, StudyConfig, TrainConfig
from raregrade.config.tune_checks import study_problems
from raregrade.losses import LOSSES
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


def test_one_epoch_leaves_hyperband_nothing_to_stop() -> None:
    study = optuna.create_study(pruner=create_pruner(StudyConfig(min_epochs=1), 1))
    trial = study.ask()
    trial.report(0.5, 1)
    assert not trial.should_prune()


@pytest.mark.parametrize(("min_epochs", "stopped_at"), [(1, 1), (2, 2), (3, 3)])
def test_nothing_is_stopped_before_min_epochs(min_epochs: int, stopped_at: int) -> None:
    """With one bracket, in which a trial that is worse from its first epoch on is stopped at the first rung."""
    config = StudyConfig(pruner="hyperband", min_epochs=min_epochs, reduction_factor=10)
    study = optuna.create_study(direction="maximize", study_name="rungs", pruner=create_pruner(config, 9))
    for level in (0.9, 0.1):
        trial = study.ask()
        for epoch in range(1, 10):
            trial.report(level, epoch)
            if trial.should_prune():
                break
        study.tell(trial, level, state=TrialState.COMPLETE)
    assert study.trials[1].last_step == stopped_at


def test_where_lower_is_better_the_higher_trial_is_stopped() -> None:
    """As ``run``, with an error that falls to its level."""
    config = StudyConfig(pruner="both", min_epochs=1)
    study = optuna.create_study(direction="minimize", study_name="pruned", pruner=create_pruner(config, EPOCHS))

    def fall_to(level: float) -> TrialState:
        trial = study.ask()
        for epoch in range(1, EPOCHS + 1):
            trial.report(level + (EPOCHS - epoch) / EPOCHS, epoch)
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return TrialState.PRUNED
        study.tell(trial, level)
        return TrialState.COMPLETE

    for _ in range(9):
        fall_to(0.5)
    assert [fall_to(0.9) for _ in range(9)].count(TrialState.PRUNED) >= 6
    assert fall_to(0.1) == TrialState.COMPLETE


@pytest.mark.parametrize("repeats", [4, 5])
def test_wilcoxon_needs_as_many_repeats_as_the_settings_ask_for(repeats: int) -> None:
    """The fewest with which it can stop a trial before its last repeat are those that are not refused."""
    study = make("wilcoxon")
    run(study, 0.5, repeats=repeats)
    stops = run(study, 0.4, repeats=repeats) == TrialState.PRUNED
    config = StudyConfig(pruner="wilcoxon", repeats=repeats)
    loss = LossChoice(name="ce", kind="ce", params=LOSSES["ce"]())
    assert stops == (study_problems(config, TrainConfig(), loss) == [])


def test_a_successor_is_judged_in_the_bracket_and_at_the_rungs_of_the_trial_it_goes_on_with() -> None:
    study = make("hyperband")
    pruner = study.pruner.hyperband  # type: ignore[attr-defined]
    run(study, 0.5)
    first = study.ask()
    first.report(0.4, 1)
    pruner.prune(study, study.trials[1])
    dead = study.trials[1]
    for number in range(2, 40):
        successor = optuna.create_trial(state=TrialState.RUNNING, user_attrs={"root": dead.number})
        successor.number = number
        assert pruner._get_bracket_id(study, successor) == pruner._get_bracket_id(study, dead)
    study.tell(first, state=TrialState.FAIL)
    assert pruner._get_bracket_id(study, study.trials[1]) == -1
