"""What follows the selection metric (the epoch that is kept, plateau, early stopping) knows which way is better."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raregrade.config import METRIC_TASKS, LossChoice, TrainSection
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.losses import LOSSES
from raregrade.training import loop
from raregrade.training.checkpoint import Checkpoint


@pytest.fixture
def judged(monkeypatch, prepared, section, reporter):
    """``judged(metric, values, **train)``: a run in which validation gives ``values``, one an epoch."""

    def run(metric: str, values: Sequence[float], loss: LossChoice | None = None, **train: object):
        left = iter(values)
        monkeypatch.setattr(loop, "compute_metrics", lambda *_, **__: {metric: next(left)})
        told = reporter()
        settings = section(batch_size=64, **{"epochs": len(values)} | train)
        settings = settings if loss is None else TrainSection(train=settings.train, loss=loss)
        result = loop.fit(settings, prepared, seed=1, metric=metric, reporter=told, checkpoint=Checkpoint(None))
        return result, told

    return run


def test_the_error_is_the_one_metric_of_which_less_is_better() -> None:
    assert [metric for metric in METRIC_TASKS if metric in LOWER_IS_BETTER] == ["mae"]


@pytest.mark.parametrize(
    ("metric", "best_epoch", "bests"),
    [("mae", 3, [True, False, True, False]), ("qwk", 2, [True, True, False, False])],
)
def test_the_epoch_with_the_best_metric_is_kept(judged, metric: str, best_epoch: int, bests: list[bool]) -> None:
    values = [0.5, 0.8, 0.3, 0.3]
    result, told = judged(metric, values)
    assert (result.best_epoch, result.best_value) == (best_epoch, values[best_epoch - 1])
    assert told.bests == bests
    assert [row[f"val_{metric}"] for row in result.history] == values


@pytest.mark.parametrize(
    ("metric", "values"), [("mae", [0.9, 0.7, 0.8, 0.71, 0.1]), ("qwk", [0.1, 0.3, 0.2, 0.29, 0.9])]
)
def test_a_run_stops_when_the_metric_no_longer_gets_better(judged, metric: str, values: list[float]) -> None:
    result, told = judged(metric, values, early_stopping=2, epochs=5)
    assert len(result.history) == 4
    assert result.best_epoch == 2
    assert f"stopped early: {metric} has not improved for 2 epochs since epoch 2" in told.notes[-1]


@pytest.mark.parametrize(
    ("metric", "values"),
    [("mae", [0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]), ("qwk", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])],
)
def test_a_run_whose_metric_gets_better_neither_stops_nor_slows_down(judged, metric: str, values: list[float]) -> None:
    plateau = {"schedule": "plateau", "lr_epochs": 1, "lr_factor": 0.5, "warmup_epochs": 0.0, "early_stopping": 4}
    result, told = judged(metric, values, lr=1e-3, **plateau)
    assert [row["lr"] for row in result.history] == [1e-3] * 7
    assert result.best_epoch == 7
    assert told.notes == []


@pytest.mark.parametrize(
    ("metric", "values"),
    [("mae", [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), ("qwk", [0.7, 0.6, 0.5, 0.4, 0.3, 0.2])],
)
def test_the_rate_falls_on_a_plateau_of_the_metric(judged, metric: str, values: list[float]) -> None:
    plateau = {"schedule": "plateau", "lr_epochs": 1, "lr_factor": 0.5, "warmup_epochs": 0.0}
    result, told = judged(metric, values, lr=1e-3, **plateau)
    assert [row["lr"] for row in result.history] == [1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    assert result.best_epoch == 1
    assert told.notes[0] == f"{metric} no longer improves: the learning rate falls to 0.0005"


@pytest.mark.parametrize("kind", ["ce", "corn", "coral"])
def test_validation_is_decided_by_the_rule_of_the_loss(kind: str, monkeypatch, prepared, section, reporter) -> None:
    rules = []

    def record(targets, probs, space, decision) -> dict[str, float]:
        rules.append(decision.rule)
        return {"qwk": 0.5}

    monkeypatch.setattr(loop, "compute_metrics", record)
    settings = section(kind, batch_size=64, epochs=1)
    loop.fit(settings, prepared, seed=1, metric="qwk", reporter=reporter(), checkpoint=Checkpoint(None))
    assert rules == [{"ce": "argmax", "corn": "median", "coral": "median"}[kind]]


def test_each_stage_has_a_best_epoch_of_its_own_and_the_last_is_that_of_the_run(judged) -> None:
    params = LOSSES["two_stage"](metric="class_center", classifier_share=0.5)
    loss = LossChoice(name="two_stage", kind="two_stage", params=params)
    result, told = judged("mae", [0.3, 0.1, 0.6, 0.5], loss=loss)
    assert told.bests == [True, True, True, True]
    assert (result.best_epoch, result.best_value) == (4, 0.5)
