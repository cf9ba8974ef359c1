"""Studies are named by what their results depend on, and the baseline gets as many trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raregrade.config import StudyStorage, TrainSection
from raregrade.errors import ConfigError, UserError
from raregrade.tuning.study import Unit

from .conftest import MakePlan


def test_the_baseline_gets_as_many_trials_repeats_and_the_same_seeds(plan: MakePlan) -> None:
    made = plan("lmf", trials=7, repeats=3)
    assert made.baseline is not None
    assert made.baseline.trials == made.search.trials == 7
    assert made.baseline.units == made.search.units == tuple(Unit(seed) for seed in (10_001, 10_002, 10_003))
    assert set(made.baseline.spaces) == {"train.lr", "train.weight_decay"}
    assert made.baseline.section.loss.kind == "ce"


def test_the_baseline_itself_has_none(plan: MakePlan) -> None:
    assert plan("ce").baseline is None


def test_two_losses_share_the_study_of_their_baseline(plan: MakePlan) -> None:
    first, second = plan("lmf"), plan("cdw_ce")
    assert first.baseline is not None
    assert second.baseline is not None
    assert first.baseline.name == second.baseline.name
    assert first.search.name != second.search.name


def test_the_study_of_the_baseline_is_its_own_where_it_is_tuned_itself(plan: MakePlan) -> None:
    beside, itself = plan("lmf"), plan("ce")
    assert beside.baseline is not None
    assert beside.baseline.name == itself.search.name
    values = {"train.lr": 0.002, "train.weight_decay": 0.1}
    first = beside.confirmations({"alpha": 0.5}, values)
    second = itself.confirmations(values, None)
    assert [first["baseline_default"].name, first["baseline"].name] == [second["default"].name, second["tuned"].name]


FIXED = {"cdw_ce": {"margin": 0.1}, "train": {"batch_size": 16, "lr": {}}}


def test_the_default_is_confirmed_exactly_as_params_yaml_has_it(plan: MakePlan) -> None:
    made = plan("cdw_ce", space=FIXED)
    arms = made.confirmations({"power": 3.0, "train.lr": 2e-3}, {"train.lr": 1e-3, "train.weight_decay": 0.1})
    assert arms["default"].section == TrainSection(train=made.section.train, loss=made.section.loss)
    assert arms["baseline_default"].section.train == made.section.train


def test_what_is_fixed_is_trained_in_trials_and_in_their_confirmation(plan: MakePlan) -> None:
    made = plan("cdw_ce", space=FIXED)
    arms = made.confirmations({"power": 3.0, "train.lr": 2e-3}, {"train.lr": 1e-3, "train.weight_decay": 0.1})
    for section in (made.search.section, arms["tuned"].section):
        assert section.loss.params.margin == 0.1  # type: ignore[attr-defined]
        assert section.train.batch_size == 16
    assert arms["baseline"].section.train.batch_size == 16
    assert made.section.train.batch_size == 32


def test_more_or_fewer_confirmations_are_the_same_study(plan: MakePlan) -> None:
    for settings in ({}, {"over": "folds", "repeats": 2}):
        names = [
            plan(confirm=confirm, **settings).confirmations({"power": 3.0}, None)["tuned"].name for confirm in (2, 7)
        ]
        assert names[0] == names[1]


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("cdw_ce", {"pruner": "hyperband"}, r"tune\.min_epochs = 3: there are 2 epochs"),
        ("cdw_ce", {"pruner": "wilcoxon", "repeats": 2}, r"tune\.repeats = 2: before the last repeat"),
        ("two_stage", {"epochs": 1}, r"train\.epochs = 1: training in 2 stages"),
    ],
)
def test_a_study_that_could_not_do_as_asked_is_refused(
    plan: MakePlan, loss: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(loss, **settings)


def test_a_loss_that_refuses_its_parameters_is_refused_before_a_trial(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("needs dlordinal, which is not installed")

    monkeypatch.setattr("raregrade.tuning.plan.create_loss", refuse)
    with pytest.raises(UserError, match="needs dlordinal"):
        plan("dlordinal", space={"train": {"lr": {}}})


def test_a_study_is_found_again_with_more_trials_another_storage_or_more_confirmation(
    plan: MakePlan, tmp_path: Path
) -> None:
    name = plan().search.name
    assert plan().search.name == name
    assert plan(trials=50, confirm=9, storage=StudyStorage(url=str(tmp_path / "x"))).search.name == name


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 5},
        {"repeats": 2},
        {"objective": "accuracy"},
        {"pruner": "both", "min_epochs": 1},
        {"space": {"cdw_ce": {"power": {"high": 9.0}}}},
        {"space": {"cdw_ce": {"margin": 0.1}}},
    ],
)
def test_whatever_changes_the_results_makes_another_study(plan: MakePlan, settings: dict[str, object]) -> None:
    assert plan(**settings).search.name != plan().search.name


def test_a_trial_over_folds_has_one_seed_and_a_fold_each(plan: MakePlan) -> None:
    made = plan(over="folds", repeats=3, confirm=6)
    assert made.search.units == (Unit(10_001, 0), Unit(10_001, 1), Unit(10_001, 2))


def test_confirmation_over_folds_takes_all_of_them_those_that_no_trial_saw_first(plan: MakePlan) -> None:
    made = plan(over="folds", repeats=3, confirm=6)
    arms = made.confirmations({"power": 3.0}, {"train.lr": 0.001, "train.weight_decay": 0.1})
    assert [unit.fold for unit in arms["tuned"].units] == [3, 4, 0, 1, 2, 3]
    assert [unit.seed for unit in arms["tuned"].units] == [20_001, 20_002, 20_003, 20_004, 20_005, 20_006]
    assert made.held_out == 0.2
    assert plan().held_out == 0


def test_more_folds_than_there_are_is_refused(plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match=r"tune\.repeats: 9 folds are asked for, and .* has 5"):
        plan(over="folds", repeats=9)


def test_confirmation_uses_seeds_that_no_trial_has_and_the_same_for_every_arm(plan: MakePlan) -> None:
    made = plan("cdw_ce", repeats=5, confirm=5)
    arms = made.confirmations({"power": 3.0}, {"train.lr": 0.001, "train.weight_decay": 0.1})
    assert set(arms) == {"default", "tuned", "baseline_default", "baseline"}
    assert len({arm.units for arm in arms.values()}) == 1
    assert not {unit.seed for unit in arms["tuned"].units} & {unit.seed for unit in made.search.units}
    assert arms["tuned"].section.loss.params.power == 3.0  # type: ignore[attr-defined]
    assert arms["baseline"].section.train.lr == 0.001
    assert arms["baseline"].section.loss.kind == "ce"


def test_a_loss_that_does_not_fit_the_data_is_refused(plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match=r"loss hbce fits task multilabel, and the labels of .* are ordinal"):
        plan("hbce")
