"""Trials are reserved before they start: whoever dies when, as many come to an end as were asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from raregrade.config import StudyStorage
from raregrade.errors import RaregradeError
from raregrade.tuning.pruning import root
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import (
    BROKE_OFF,
    FINISHED,
    StudyPlan,
    best_trials,
    claim,
    counts,
    delete_study,
    give_back,
    open_study,
    suggest,
)

from .conftest import MakePlan


@pytest.fixture(params=["journal", "sqlite"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStorage:
    path = tmp_path / "studies"
    return open_storage(StudyStorage(url=str(path) if request.param == "journal" else f"sqlite:///{path}"))


@pytest.fixture
def small(plan: MakePlan) -> StudyPlan:
    return plan("cdw_ce", trials=6).search


def finish(trial: optuna.Trial, small: StudyPlan, value: float = 0.5) -> None:
    suggest(trial, small.spaces)
    trial.study.tell(trial, value)


def run_all(shared: SharedStorage, small: StudyPlan, worker: str) -> int:
    study, done = open_study(shared, small), 0
    with shared.alive(worker):
        while (trial := claim(shared, study, small, worker, retries=3)) is not None:
            finish(trial, small)
            done += 1
    return done


def test_all_trials_wait_from_the_start_with_settings_and_papers_first(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    assert counts(study).waiting == 6
    with shared.alive("a"):
        trials = [claim(shared, study, small, "a", retries=3) for _ in range(5)]
        values = [suggest(trial, small.spaces)["power"] for trial in trials if trial is not None]
    assert values[:3] == [5.0, 6.0, 7.0]  # what params.yaml says is the first paper's value, and is tried once
    sources = [trial.user_attrs["source"] for trial in trials if trial is not None]
    assert sources == ["default", "paper", "paper", "sampler", "sampler"]


def test_opening_again_reserves_nothing_more(shared: SharedStorage, small: StudyPlan) -> None:
    for _ in range(3):
        study = open_study(shared, small)
    assert len(study.trials) == 6


def test_many_workers_finish_the_asked_number_and_never_one_more(tmp_path: Path, small: StudyPlan) -> None:
    done: list[int] = []

    def run(worker: str) -> None:
        own = open_storage(StudyStorage(url=str(tmp_path / "studies")))
        done.append(run_all(own, small, worker))

    threads = [threading.Thread(target=run, args=(f"worker-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = open_study(open_storage(StudyStorage(url=str(tmp_path / "studies"))), small)
    assert sum(done) == 6
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6


def test_the_trial_of_a_dead_worker_goes_on_with_what_it_found_out(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("dies"):
        trial = claim(shared, study, small, "dies", retries=3)
        assert trial is not None
        values = suggest(trial, small.spaces)
        trial.report(0.25, 1)
        trial.set_user_attr("repeat_0", {"value": 0.25})
    with shared.alive("lives"):
        taken = [claim(shared, study, small, "lives", retries=3) for _ in range(6)]
        assert claim(shared, study, small, "lives", retries=3) is None
        successor = taken[-1]
        assert successor is not None
        assert suggest(successor, small.spaces) == values
        assert successor.user_attrs["repeat_0"] == {"value": 0.25}
        assert successor.user_attrs["retry_of"] == trial.number
        for other in taken:
            assert other is not None
            finish(other, small)
    found = counts(study)
    assert (found.finished, found.open) == (6, 0)
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    assert study.trials[successor.number].intermediate_values == {1: 0.25}


def test_a_living_worker_keeps_its_trial(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("slow"):
        assert claim(shared, study, small, "slow", retries=3) is not None
        with shared.alive("fast"):
            while claim(shared, study, small, "fast", retries=3) is not None:
                pass
        assert counts(study).running == 6
        assert [t.state for t in study.trials] == [TrialState.RUNNING] * 6


def test_a_worker_that_dies_between_failing_a_trial_and_putting_it_back_loses_nothing(
    shared: SharedStorage, small: StudyPlan
) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        trial = claim(shared, study, small, "a", retries=3)
        assert trial is not None
        shared.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert run_all(shared, small, "b") == 6


def test_a_trial_given_back_is_finished_by_another(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        trial = claim(shared, study, small, "a", retries=0)
        assert trial is not None
        give_back(shared, trial, small, "interrupted")
        # An interruption is no death, so it does not count against the retries.
        assert run_all(shared, small, "b") == 6


def test_a_trial_that_kills_every_worker_ends_as_pruned_and_the_study_goes_on(
    shared: SharedStorage, small: StudyPlan, caplog: pytest.LogCaptureFixture
) -> None:
    two = replace(small, trials=2)
    study = open_study(shared, two)
    for number in range(3):
        with shared.alive(f"worker-{number}"):
            trial = claim(shared, study, two, f"worker-{number}", retries=2)
            assert trial is not None
            while root(trial.study.trials[trial.number]) != 0:  # the trial that waits besides
                finish(trial, two)
                trial = claim(shared, study, two, f"worker-{number}", retries=2)
                assert trial is not None
            values = suggest(trial, two.spaces)
    with shared.alive("last"):
        assert claim(shared, study, two, "last", retries=2) is None
    found = counts(open_study(shared, two))
    assert (found.complete, found.pruned, found.open) == (1, 1, 0)
    last = study.trials[-1]
    assert (last.state, last.params) == (TrialState.PRUNED, values)
    assert last.user_attrs["ended"].startswith("given up: its worker died 3 times, most often because memory ran out")
    assert "its worker died 3 times" in caplog.text
    assert best_trials(study)


def test_a_trial_with_an_error_that_comes_again_and_again_is_given_up(shared: SharedStorage, small: StudyPlan) -> None:
    one = replace(small, trials=1)
    study = open_study(shared, one)
    with shared.alive("a"):
        for _ in range(2):
            trial = claim(shared, study, one, "a", retries=1)
            assert trial is not None
            give_back(shared, trial, one, f"{BROKE_OFF}KeyError: 'x'")
        assert claim(shared, study, one, "a", retries=1) is None
    assert study.trials[-1].user_attrs["ended"] == "given up after 2 tries, the last with an error: KeyError: 'x'"


def test_a_shortage_that_is_no_fault_of_the_trial_does_not_count_against_it(
    shared: SharedStorage, small: StudyPlan
) -> None:
    one = replace(small, trials=1)
    study = open_study(shared, one)
    with shared.alive("a"):
        for _ in range(5):
            trial = claim(shared, study, one, "a", retries=1)
            assert trial is not None
            give_back(shared, trial, one, "broke off: no space left on the disk")
    assert counts(open_study(shared, one)).waiting == 1


def test_a_successor_inherits_rungs(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("dies"):
        dead = claim(shared, study, small, "dies", retries=3)
        assert dead is not None
        dead.report(0.4, 1)
        shared.storage.set_trial_system_attr(dead._trial_id, "completed_rung_0", 0.4)
    with shared.alive("lives"):
        taken = [claim(shared, study, small, "lives", retries=3) for _ in range(6)]
    successor = study.trials[-1]
    assert taken[-1] is not None
    assert successor.system_attrs["completed_rung_0"] == 0.4
    assert (root(successor), successor.number) == (dead.number, 6)


def test_a_successor_draws_what_the_dead_trial_would_have_drawn(tmp_path: Path, small: StudyPlan) -> None:
    four = replace(small, trials=4)  # three starts, and one that is sampled
    drawn = []
    for dies in (False, True):
        own = open_storage(StudyStorage(url=str(tmp_path / f"dies-{dies}")))
        study = open_study(own, four)
        with own.alive("a"):
            for value in (0.3, 0.5, 0.4):
                trial = claim(own, study, four, "a", retries=3)
                assert trial is not None
                finish(trial, four, value)
        if dies:
            with own.alive("dies"):
                assert claim(own, study, four, "dies", retries=3) is not None
        with own.alive("b"):
            last = claim(own, study, four, "b", retries=3)
            assert last is not None
            drawn.append((last.number, suggest(last, four.spaces)))
    assert [number for number, _ in drawn] == [3, 4]
    assert drawn[0][1] == drawn[1][1]


def test_hyperband_has_as_many_epochs_as_the_last_stage(shared: SharedStorage, plan: MakePlan) -> None:
    made = plan("two_stage", epochs=10, pruner="hyperband", min_epochs=1)
    assert open_study(shared, made.search).pruner.hyperband._max_resource == 3
    assert made.baseline is not None
    assert open_study(shared, made.baseline).pruner.hyperband._max_resource == 10


def test_only_the_asked_number_of_trials_counts_where_another_loss_asked_for_more(
    shared: SharedStorage, small: StudyPlan
) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        for value in (0.1, 0.7, 0.3, 0.2, 0.9, 0.4):
            trial = claim(shared, study, small, "a", retries=3)
            assert trial is not None
            finish(trial, small, value)
    assert [best_trials(study, first)[0].value for first in (3, 6)] == [0.7, 0.9]


def test_asking_for_more_trials_goes_on_and_for_fewer_withdraws_what_waits(
    shared: SharedStorage, small: StudyPlan
) -> None:
    run_all(shared, small, "a")
    study = open_study(shared, replace(small, trials=8))
    assert (counts(study).finished, counts(study).waiting) == (6, 2)
    assert counts(open_study(shared, replace(small, trials=7))).waiting == 1
    assert run_all(shared, replace(small, trials=7), "b") == 1
    assert counts(open_study(shared, replace(small, trials=7))).finished == 7


def test_a_study_that_goes_on_draws_what_it_would_have_drawn(tmp_path: Path, small: StudyPlan) -> None:
    drawn = {}
    for name, pieces in (("whole", [6]), ("in pieces", [2, 1, 3])):
        url = str(tmp_path / name)
        for piece in pieces:
            own = open_storage(StudyStorage(url=url))
            study = open_study(own, small)
            with own.alive("a"):
                for _ in range(piece):
                    trial = claim(own, study, small, "a", retries=3)
                    assert trial is not None
                    power = suggest(trial, small.spaces)["power"]
                    study.tell(trial, -abs(float(power) - 3.0))
        drawn[name] = [t.params for t in study.trials]
    assert drawn["whole"] == drawn["in pieces"]
    assert len({values["power"] for values in drawn["whole"]}) == 6


def test_the_best_trial_is_the_earlier_of_two_equals(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        for value in (0.1, 0.7, 0.7, 0.2, 0.3, 0.4):
            trial = claim(shared, study, small, "a", retries=3)
            assert trial is not None
            finish(trial, small, value)
    assert [trial.number for trial in best_trials(study)[:3]] == [1, 2, 5]


def test_a_study_without_a_complete_trial_says_so(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        for reason in ["diverged: the loss became NaN"] * 4 + ["cannot be trained: too little memory"] * 2:
            trial = claim(shared, study, small, "a", retries=3)
            assert trial is not None
            trial.set_user_attr("ended", reason)
            study.tell(trial, state=TrialState.PRUNED)
    expected = (
        r"no trial of .* came to its end\. 4 of 6: diverged: the loss became NaN\. "
        r"2 of 6: cannot be trained: too little memory\. .*`raregrade tune --fresh`"
    )
    with pytest.raises(RaregradeError, match=expected):
        best_trials(study)


def test_a_study_at_work_is_not_deleted(shared: SharedStorage, small: StudyPlan) -> None:
    study = open_study(shared, small)
    with shared.alive("a"):
        assert claim(shared, study, small, "a", retries=3) is not None
        with pytest.raises(RaregradeError, match="is being worked on"):
            delete_study(shared, small)
    delete_study(shared, small)
    assert small.name not in optuna.get_all_study_names(shared.storage)
    assert all(state not in FINISHED for state in (t.state for t in open_study(shared, small).trials))
