"""What a trial trains, what it tells the pruner, and how it ends. The training itself is replaced by a curve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from raregrade.atomic import WriteError
from raregrade.config import StudyStorage, TrainSection
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, UserError
from raregrade.training.reporter import Reporter
from raregrade.training.result import TrainingDivergedError
from raregrade.tuning import trial as trial_module
from raregrade.tuning.dataset import HeldOutTestError
from raregrade.tuning.storage import open_storage
from raregrade.tuning.study import counts, open_study
from raregrade.tuning.workers import work

from .conftest import MakePlan

Curve = Callable[[TrainSection, int], list[float]]


class Training:
    """Stands in for ``fit``: reports a curve, best epoch of the last stage as ``fit`` has it, and remembers its calls.

    Attributes:
        curve: the metric after each epoch, for a section and a seed; may raise.
        calls: section, dataset and seed of each training.
    """

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.calls: list[SimpleNamespace] = []

    def __call__(
        self,
        section: TrainSection,
        dataset: PreparedDataset,
        *,
        seed: int,
        metric: str,
        reporter: Reporter,
        checkpoint: object,
    ) -> SimpleNamespace:
        del checkpoint
        self.calls.append(SimpleNamespace(section=section, dataset=dataset, seed=seed))
        history: list[dict[str, float]] = []
        for epoch, value in enumerate(self.curve(section, seed), start=1):
            # A last stage that trains nothing is judged once more under the number of the last epoch.
            history.append({"epoch": min(epoch, section.train.epochs), f"val_{metric}": value})
            reporter.epoch(history[-1], best=False)
        share = section.loss.params.stage_shares[-1]
        last = history[-max(1, round(section.train.epochs * share)) :]
        best = (min if metric == "mae" else max)(last, key=lambda row: row[f"val_{metric}"])
        return SimpleNamespace(best_value=best[f"val_{metric}"], best_epoch=best["epoch"], history=history)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Callable[[Curve], Training]:
    def replace(curve: Curve) -> Training:
        made = Training(curve)
        monkeypatch.setattr(trial_module, "fit", made)
        return made

    return replace


def searched(plan: Any) -> list[optuna.trial.FrozenTrial]:
    return open_study(open_storage(plan.storage), plan.search).trials  # type: ignore[no-any-return]


def flat(section: TrainSection, seed: int) -> list[float]:
    """One value for each setting and seed."""
    level = section.train.lr + seed / 1e6
    return [level] * section.train.epochs


def test_a_trial_over_folds_validates_on_its_folds_without_the_test_split(
    plan: MakePlan, training: Callable[[Curve], Training]
) -> None:
    done = training(flat)
    made = plan("ce", over="folds", repeats=2, trials=1, confirm=2)
    work(made)
    folds = [(call.seed, call.dataset.fold) for call in done.calls]
    assert folds[:2] == [(10_001, 0), (10_001, 1)]
    assert folds[2:] == [(20_001, 2), (20_002, 3)]
    for call in done.calls:
        held_out = call.dataset.manifest["fold"] == call.dataset.fold
        assert (call.dataset.manifest["split"][held_out] == "val").all()
        with pytest.raises(HeldOutTestError):
            call.dataset.rows("test")


def test_folds_of_a_trial_never_share_a_checkpoint(
    plan: MakePlan, training: Callable[[Curve], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training(flat)
    keys: list[str] = []
    original = trial_module.open_checkpoint

    def opened(place: Any, key: str) -> Any:
        keys.append(key)
        return original(place, key)

    monkeypatch.setattr(trial_module, "open_checkpoint", opened)
    work(plan("ce", over="folds", repeats=3, trials=1, confirm=2))
    assert len(set(keys)) == len(keys) == 5


def test_the_value_of_a_trial_is_the_mean_of_its_repeats(plan: MakePlan, training: Callable[[Curve], Training]) -> None:
    training(flat)
    made = plan("ce", trials=1, repeats=3)
    work(made)
    assert searched(made)[0].value == pytest.approx(3e-3 + 10_002 / 1e6)


def test_a_loss_in_two_stages_reports_the_epochs_of_its_last_stage_alone(
    plan: MakePlan, training: Callable[[Curve], Training]
) -> None:
    """Ten epochs, of which the last three train the classifier."""
    training(lambda _, __: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1, 0.3, 0.2])
    made = plan("two_stage", epochs=10, trials=1, pruner="both", min_epochs=1)
    work(made)
    (trial,) = searched(made)
    assert trial.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.3}
    assert trial.value == 0.3


def test_a_head_that_trains_nothing_is_judged_once_and_never_stopped(
    plan: MakePlan, training: Callable[[Curve], Training]
) -> None:
    levels = iter([0.9, 0.5, 0.1, *[0.2] * 20])

    def curve(section: TrainSection, _: int) -> list[float]:
        level = next(levels)
        return [level] * (section.train.epochs + 1)

    training(curve)
    space = {"two_stage": {"classifier": "tau_norm"}}
    made = plan("two_stage", epochs=4, trials=3, pruner="both", min_epochs=1, space=space)
    work(made)
    assert [trial.state for trial in searched(made)] == [TrialState.COMPLETE] * 3
    assert [trial.intermediate_values for trial in searched(made)] == [{}] * 3


def test_a_trial_that_begins_badly_and_ends_well_is_not_stopped(
    plan: MakePlan, training: Callable[[Curve], Training]
) -> None:
    """Its representation lags behind that of the trial before, and its classifier is the better one."""
    curves = iter([[0.7] * 7 + [0.5] * 3, [0.1] * 7 + [0.6] * 3])
    training(lambda _, __: next(curves, [0.1] * 10))
    made = plan("two_stage", epochs=10, trials=2, pruner="both", min_epochs=1, reduction_factor=10)
    work(made)
    first, second = searched(made)
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert second.value == 0.6


@pytest.mark.parametrize(
    ("objective", "levels", "stopped"), [("mae", (0.2, 0.9), [1]), ("mae", (0.9, 0.2), []), ("qwk", (0.9, 0.2), [1])]
)
def test_the_worse_trial_is_stopped_whichever_way_is_better(
    plan: MakePlan,
    training: Callable[[Curve], Training],
    objective: str,
    levels: tuple[float, float],
    stopped: list[int],
) -> None:
    curves = iter(levels)
    training(lambda section, _: [next(curves, 0.5)] * section.train.epochs)
    made = plan("ce", epochs=4, trials=2, pruner="both", min_epochs=1, reduction_factor=10, objective=objective)
    work(made)
    trials = searched(made)
    assert [trial.number for trial in trials if trial.state == TrialState.PRUNED] == stopped
    assert [trial.user_attrs.get("unfinished_epochs") for trial in trials if trial.number in stopped] == [1] * len(
        stopped
    )


def test_where_lower_is_better_a_trial_reports_its_lowest_epoch_so_far(
    plan: MakePlan, training: Callable[[Curve], Training]
) -> None:
    training(lambda _, __: [0.9, 0.4, 0.6, 0.3])
    made = plan("ce", epochs=4, trials=1, pruner="both", min_epochs=1, objective="mae")
    work(made)
    (trial,) = searched(made)
    assert trial.intermediate_values == {1: 0.9, 2: 0.4, 3: 0.4, 4: 0.3}
    assert trial.value == 0.3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            UserError("this machine has too little memory for 512 images at once; 64 fit. Set train.accumulate=8."),
            "cannot be trained: this machine has too little memory for 512 images at once; 64 fit",
        ),
        (UserError("the loss refuses gamma = 3"), "cannot be trained: the loss refuses gamma = 3"),
        (
            TrainingDivergedError("the loss became NaN in epoch 1, at learning rate 0.5. Lower train.lr."),
            "diverged: the loss became NaN in epoch 1, at learning rate 0.5",
        ),
    ],
)
def test_a_trial_that_cannot_be_trained_is_pruned_with_the_reason_and_the_study_goes_on(
    plan: MakePlan, training: Callable[[Curve], Training], error: Exception, reason: str
) -> None:
    trainings = iter([0.5, error])

    def curve(section: TrainSection, seed: int) -> list[float]:
        found = next(trainings, 0.4)
        if isinstance(found, Exception):
            raise found
        return [found + seed / 1e7] * section.train.epochs

    training(curve)
    made = plan("ce", trials=3)
    work(made)
    trials = searched(made)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert trials[1].user_attrs["ended"] == reason


def test_values_that_do_not_fit_together_end_their_trial_alone(
    plan: MakePlan, training: Callable[[Curve], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training(flat)
    made = plan("cdw_ce", trials=2)
    original, seen = trial_module.with_values, []

    def refuse_the_second(section: TrainSection, values: Any) -> TrainSection:
        seen.append(values)
        if len(seen) == 2:
            raise UserError("parameters of cdw_ce are wrong:\n  power = 7.0: too much")
        return original(section, values)

    monkeypatch.setattr(trial_module, "with_values", refuse_the_second)
    work(made)
    assert searched(made)[1].user_attrs["ended"] == (
        "cannot be trained: parameters of cdw_ce are wrong: power = 7.0: too much"
    )


@pytest.mark.parametrize(
    "error", [WriteError(Path("checkpoints"), "no space left", "Free some."), DataError("images/0.npy is damaged")]
)
def test_a_full_disk_or_damaged_data_stop_the_study_and_not_the_trial(
    plan: MakePlan, training: Callable[[Curve], Training], error: Exception
) -> None:
    def curve(section: TrainSection, seed: int) -> list[float]:
        if not recovered:
            raise error
        return flat(section, seed)

    recovered: list[bool] = []
    training(curve)
    made = plan("ce", trials=2)
    for _ in range(made.storage.retries + 2):
        with pytest.raises(type(error)):
            work(made)
    recovered.append(True)
    work(made)
    found = counts(open_study(open_storage(made.storage), made.search))
    assert (found.complete, found.pruned) == (2, 0)


def test_an_error_that_nobody_foresaw_ends_its_trial_after_as_many_tries_as_a_death(
    plan: MakePlan, training: Callable[[Curve], Training], tmp_path: Path
) -> None:
    def curve(section: TrainSection, seed: int) -> list[float]:
        if section.train.lr == 3e-3 and seed < 20_000:
            raise RuntimeError("an index is out of range")
        return flat(section, seed)

    training(curve)
    made = plan("ce", trials=2, storage=StudyStorage(url=str(tmp_path / "few"), retries=1))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            work(made)
    work(made)
    ended = [trial.user_attrs["ended"] for trial in searched(made) if trial.state == TrialState.PRUNED]
    assert ended == ["given up after 2 tries, the last with an error: RuntimeError: an index is out of range"]
