"""What a study tells a person while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState

from raregrade.tuning import progress
from raregrade.tuning.progress import StudyProgress, TrialProgress

PLAN = cast(Any, SimpleNamespace(searches=("loss", "baseline"), confirm_units=("a", "b", "c")))
SEARCH = cast(Any, SimpleNamespace(name="lmf-1", metric="qwk", trials=4, units=("a", "b"), unit_each=False))
CONFIRMATION = cast(Any, SimpleNamespace(name="confirm-1", metric="qwk", trials=4, units=("a",) * 4, unit_each=True))


@dataclass
class Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def new_study(complete: int, running: int, waiting: int) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    states = [TrialState.COMPLETE] * complete + [TrialState.RUNNING] * running + [TrialState.WAITING] * waiting
    for state in states:
        value = 0.5 if state == TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(state=state, value=value))
    return study


def test_a_long_trial_tells_how_far_it_is_from_the_first_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = TrialProgress("lmf-1: trial 1", epochs=20)
    for step in range(1, 31):
        clock.now += 1.0
        trial.step(0, step, 30)
    trial.epoch("qwk", 0.25)
    clock.now += 10.0
    trial.step(1, 1, 30)
    assert capsys.readouterr().err.splitlines() == [
        "lmf-1: trial 1: epoch 1/20, step 10/30",
        "lmf-1: trial 1: epoch 1/20, step 20/30",
        "lmf-1: trial 1: epoch 1/20, step 30/30",
        "lmf-1: trial 1: epoch 2/20, step 1/30  val qwk 0.2500",
    ]


def test_short_trials_are_told_by_their_outcome_alone(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    trial = TrialProgress("lmf-1: trial 1", epochs=20)
    for epoch in range(20):
        clock.now += 0.4
        trial.step(epoch, 1, 1)
    assert capsys.readouterr().err == ""


def test_the_time_left_counts_open_trials_and_the_confirmations_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    study, baseline = new_study(1, 0, 3), new_study(0, 0, 4)
    StudyProgress(PLAN).finished(SEARCH, study, 0, state=TrialState.COMPLETE, seconds=10.0, others=[baseline])
    # 7 open trials of 10 s, and 4 confirmations of 3 trainings, each of which took 5 s
    assert capsys.readouterr().err == "lmf-1: 1/4  qwk 0.5000  (10 s; about 0:02:10 left)\n"


def test_the_time_left_is_shared_by_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    study = new_study(1, 1, 2)
    told = StudyProgress(PLAN)
    told.finished(CONFIRMATION, study, 0, state=TrialState.COMPLETE, seconds=10.0, others=[])
    assert "about 0:00:15 left" in capsys.readouterr().err
    study.tell(1, 0.5)
    told.finished(CONFIRMATION, study, 1, state=TrialState.COMPLETE, seconds=10.0, others=[])
    assert "about 0:00:10 left" in capsys.readouterr().err, "the other worker is between two trials"


def test_a_pruned_trial_says_why_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    study = new_study(0, 0, 1)
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED, user_attrs={"ended": "stopped after epoch 3 of 10"}))
    StudyProgress(PLAN).finished(CONFIRMATION, study, 1, state=TrialState.PRUNED, seconds=4.0, others=[])
    assert "confirm-1: 1/4  stopped after epoch 3 of 10  (4 s; about 0:00:04 left)" in capsys.readouterr().err
