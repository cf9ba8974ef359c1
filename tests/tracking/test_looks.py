"""What MLflow tells of earlier comparisons and trainings on a dataset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raregrade.tracking import DatasetIdentity, Tracking, start_step
from raregrade.tracking.connection import connect
from raregrade.tracking.looks import logged_looks, look_tags, minutes_of_training


def log(tracking: Tracking, step: str, dataset: DatasetIdentity, tags: dict[str, str] | None = None) -> str:
    with start_step(tracking, step, name=step, data=dataset, tags=tags) as run:
        pass
    assert run.run_id is not None
    return run.run_id


def test_comparisons_that_looked_at_the_split_are_found(tracking: Tracking, dataset: DatasetIdentity) -> None:
    for split, identity in (("x", "a"), ("x", "b"), ("x", "b"), ("y", "c")):
        log(tracking, "compare", dataset, dict(look_tags(split, identity)))
    log(tracking, "compare", dataset)
    assert logged_looks(tracking, "x") == {"a", "b"}
    assert logged_looks(tracking, "z") == set()
    assert logged_looks(replace(tracking, experiment="another"), "x") == set()


def test_more_runs_than_a_page_holds_are_all_read(
    tracking: Tracking, dataset: DatasetIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raregrade.tracking.looks._PAGE", 2)
    for number in range(5):
        log(tracking, "compare", dataset, dict(look_tags("x", str(number))))
    assert logged_looks(tracking, "x") == {"0", "1", "2", "3", "4"}


def test_a_training_takes_what_the_middle_one_of_the_finished_took(
    tracking: Tracking, dataset: DatasetIdentity
) -> None:
    assert minutes_of_training(tracking, dataset.content_hash) is None
    client = connect(tracking.uri, tracking.experiment).client
    for minutes in (1, 4, 60):
        run_id = log(tracking, "train", dataset)
        started = client.get_run(run_id).info.start_time
        client.set_terminated(run_id, "FINISHED", end_time=started + minutes * 60_000)
    client.set_terminated(log(tracking, "train", dataset), "KILLED", end_time=2**45)
    log(tracking, "evaluate", dataset)
    assert minutes_of_training(tracking, dataset.content_hash) == 4
    assert minutes_of_training(tracking, "another dataset") is None


def test_without_tracking_nothing_is_known() -> None:
    off = Tracking("none", "grades")
    assert logged_looks(off, "x") == set()
    assert minutes_of_training(off, "x") is None
