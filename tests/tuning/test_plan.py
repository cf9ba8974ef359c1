"""Studies are named by what their results depend on, and the baseline gets as many trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade.config import StudyStorage
from raregrade.errors import ConfigError
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
        {"pruner": "both"},
        {"space": {"cdw_ce": {"power": {"high": 9.0}}}},
        {"space": {"cdw_ce": {"margin": 0.1}}},
    ],
)
def test_whatever_changes_the_results_makes_another_study(plan: MakePlan, settings: dict[str, object]) -> None:
    assert plan(**settings).search.name != plan().search.name


def test_a_trial_over_folds_has_one_seed_and_a_fold_each(plan: MakePlan) -> None:
    made = plan(over="folds", repeats=3, confirm=4)
    assert made.search.units == (Unit(10_001, 0), Unit(10_001, 1), Unit(10_001, 2))
    arms = made.confirmations({"power": 3.0}, {"train.lr": 0.001, "train.weight_decay": 0.1})
    assert [(unit.seed, unit.fold) for unit in arms["tuned"].units] == [
        (20_001, 0),
        (20_002, 1),
        (20_003, 2),
        (20_004, 0),
    ]


def test_more_folds_than_there_are_is_refused(plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match=r"tune\.repeats: 9 folds are asked for, and .* has 5"):
        plan(over="folds", repeats=9)


def test_confirmation_uses_seeds_that_no_trial_has_and_the_same_for_every_arm(plan: MakePlan) -> None:
    made = plan("cdw_ce", repeats=5, confirm=5)
    arms = made.confirmations({"power": 3.0}, {"train.lr": 0.001, "train.weight_decay": 0.1})
    assert set(arms) == {"default", "tuned", "baseline"}
    assert len({arm.units for arm in arms.values()}) == 1
    assert not {unit.seed for unit in arms["tuned"].units} & {unit.seed for unit in made.search.units}
    assert arms["tuned"].section.loss.params.power == 3.0  # type: ignore[attr-defined]
    assert arms["baseline"].section.train.lr == 0.001
    assert arms["baseline"].section.loss.kind == "ce"


def test_a_loss_that_does_not_fit_the_data_is_refused(plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match=r"loss hbce fits task multilabel, and the labels of .* are ordinal"):
        plan("hbce")
