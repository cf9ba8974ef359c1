"""What is written of a finished study, whichever way the confirmation went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from raregrade.config import TrainSection
from raregrade.config.tuned import tuned_section
from raregrade.tuning.plan import TunePlan, section_hash
from raregrade.tuning.result import write_result
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import StudyPlan, best_trials, claim, open_study, suggest

from .conftest import MakePlan


def fill(shared: SharedStorage, small: StudyPlan, values: list[float | None]) -> None:
    """Finish the trials of a study as if they had been trained, with these values in turn; None diverged."""
    study = open_study(shared, small)
    with shared.alive("a"):
        for value in values:
            trial = claim(shared, study, small, "a", retries=0)
            assert trial is not None
            suggest(trial, small.spaces)
            if value is None:
                study.tell(trial, state=TrialState.PRUNED)
                continue
            trial.set_user_attr("repeat_0", {"value": value, "epoch": 1, "epochs": 2, "resumed_at": 0, "seconds": 1.0})
            study.tell(trial, value)


def finished(
    made: TunePlan,
    *,
    default: list[float | None],
    tuned: list[float | None],
    baseline: list[float | None],
    baseline_default: list[float | None] | None = None,
    search: tuple[float, float, float] = (0.3, 0.6, 0.5),
) -> None:
    """A search, whose second trial is the best, and confirmations with the given values; None is one that failed.

    Of the baseline's two arms the tuned one is the better by default.
    """
    shared = open_storage(made.storage)
    assert made.baseline is not None
    fill(shared, made.search, list(search))
    fill(shared, made.baseline, [0.2, 0.4, 0.1])
    best = best_trials(open_study(shared, made.search))[0].params
    arms = made.confirmations(best, best_trials(open_study(shared, made.baseline))[0].params)
    worse = [0.0 if i % 2 else 0.01 for i in range(len(made.confirm_units))]
    for name, values in (
        ("default", default),
        ("tuned", tuned),
        ("baseline", baseline),
        ("baseline_default", baseline_default or worse),
    ):
        fill(shared, arms[name], values)


HIGH, MIDDLE, LOW = [0.60, 0.62, 0.64], [0.50, 0.51, 0.55], [0.30, 0.33, 0.31]


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"default": LOW, "tuned": HIGH, "baseline": MIDDLE}, ("tuned", True, "and better than the tuned ce")),
        (
            {"default": LOW, "tuned": MIDDLE, "baseline": HIGH},
            ("tuned", False, "not shown to be better than the tuned"),
        ),
        ({"default": MIDDLE, "tuned": MIDDLE[::-1], "baseline": LOW}, ("default", False, "the settings are kept")),
        ({"default": HIGH, "tuned": LOW, "baseline": LOW}, ("default", False, "the settings are kept")),
    ],
)
def test_tuned_parameters_are_kept_only_where_they_are_shown_to_be_better(
    plan: MakePlan, tmp_path: Path, values: dict[str, list[float]], outcome: tuple[str, bool, str]
) -> None:
    chosen, better, words = outcome
    made = plan("cdw_ce", trials=3, confirm=3)
    finished(made, **values)
    result = write_result(made, tmp_path / "tuned")
    assert (result["chosen"], result["better"]) == (chosen, better)
    assert words in result["verdict"]
    assert result["params"]["power"] == (6.0 if chosen == "tuned" else 5.0)
    assert result["confirmation"]["tuned"]["values"] == values["tuned"]
    assert yaml.safe_load((tmp_path / "tuned" / "best.yaml").read_text()) == result


def test_training_parameters_that_were_tuned_are_kept_beside_the_losses_own(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("cdw_ce", trials=3, confirm=3, space={"train": {"lr": {}}})
    finished(made, default=LOW, tuned=HIGH, baseline=LOW)
    result = write_result(made, tmp_path / "tuned")
    assert set(result["train"]) == {"lr"}
    assert result["trial"]["values"]["train.lr"] == result["train"]["lr"]


def test_the_table_has_a_row_for_every_trial_and_the_pictures_are_drawn(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("cdw_ce", trials=3, confirm=3)
    finished(made, default=LOW, tuned=HIGH, baseline=MIDDLE)
    write_result(made, tmp_path / "tuned")
    table = pd.read_csv(tmp_path / "tuned" / "trials.csv")
    roles: dict[str, Any] = table["role"].value_counts().to_dict()
    arms = ["confirm_default", "confirm_tuned", "confirm_baseline_default", "confirm_baseline"]
    expected = dict.fromkeys(["search", "baseline", *arms], 3)
    assert roles == expected
    assert table.loc[table["role"] == "search", "value"].tolist() == [0.3, 0.6, 0.5]
    assert table.loc[table["role"] == "search", "source"].tolist() == ["default", "paper", "paper"]
    pictures = {path.name for path in (tmp_path / "tuned" / "figures").iterdir()}
    assert pictures == {"history.png", "importance.png", "parallel.png", "slice.png"}


FIXED = {"cdw_ce": {"margin": 0.1}, "train": {"batch_size": 16, "lr": {}}}


def own_section(made: TunePlan, *, of_baseline: bool = False) -> TrainSection:
    """What ``train`` is given from params.yaml."""
    assert made.baseline is not None
    return TrainSection(train=made.section.train, loss=made.baseline.section.loss if of_baseline else made.section.loss)


@pytest.mark.parametrize(("file", "role"), [("best.yaml", "tuned"), ("baseline.yaml", "baseline")])
def test_what_is_trained_with_a_file_is_what_was_confirmed(
    plan: MakePlan, tmp_path: Path, file: str, role: str
) -> None:
    made = plan("cdw_ce", trials=3, confirm=3, space=FIXED)
    finished(made, default=LOW, tuned=HIGH, baseline=MIDDLE)
    result = write_result(made, tmp_path / "tuned")
    own = own_section(made, of_baseline=role == "baseline")
    trained = tuned_section(own, tmp_path / "tuned" / file)
    arms = made.confirmations(result["trial"]["values"], result["baseline"]["trial"]["values"])
    assert section_hash(trained) == section_hash(arms[role].section)
    assert section_hash(trained) != section_hash(own)
    assert trained.train.batch_size == 16
    assert trained.loss.name == own.loss.name + "-tuned"


@pytest.mark.parametrize(("file", "role"), [("best.yaml", "default"), ("baseline.yaml", "baseline_default")])
def test_where_the_settings_are_kept_they_are_trained_as_params_yaml_has_them(
    plan: MakePlan, tmp_path: Path, file: str, role: str
) -> None:
    made = plan("cdw_ce", trials=3, confirm=3, space=FIXED)
    finished(made, default=HIGH, tuned=LOW, baseline=LOW, baseline_default=HIGH)
    result = write_result(made, tmp_path / "tuned")
    own = own_section(made, of_baseline=role == "baseline_default")
    trained = tuned_section(own, tmp_path / "tuned" / file)
    arms = made.confirmations(result["trial"]["values"], result["baseline"]["trial"]["values"])
    assert yaml.safe_load((tmp_path / "tuned" / file).read_text())["chosen"] == "default"
    assert section_hash(trained) == section_hash(own) == section_hash(arms[role].section)


def test_a_loss_is_held_against_what_the_baselines_own_study_chose(plan: MakePlan, tmp_path: Path) -> None:
    """The best trial of the baseline is worse than its own settings here, and these are worse than nothing."""
    made = plan("cdw_ce", trials=3, confirm=3)
    finished(made, default=LOW, tuned=MIDDLE, baseline=LOW, baseline_default=HIGH)
    result = write_result(made, tmp_path / "tuned")
    assert (result["chosen"], result["better"], result["baseline"]["chosen"]) == ("tuned", False, "default")
    assert "not shown to be better than the tuned ce" in result["verdict"]


def test_the_file_of_the_baseline_is_what_its_own_study_would_leave(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("cdw_ce", trials=3, confirm=3)
    finished(made, default=LOW, tuned=HIGH, baseline=MIDDLE)
    write_result(made, tmp_path / "tuned")
    write_result(plan("ce", trials=3, confirm=3), tmp_path / "itself")
    beside = yaml.safe_load((tmp_path / "tuned" / "baseline.yaml").read_text())
    itself = yaml.safe_load((tmp_path / "itself" / "best.yaml").read_text())
    assert beside == itself == yaml.safe_load((tmp_path / "itself" / "baseline.yaml").read_text())
    assert (beside["loss"], beside["chosen"], beside["better"]) == ("ce", "tuned", True)


def test_settings_that_diverge_on_every_seed_lose_against_some_that_train(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("cdw_ce", trials=3, confirm=3)
    finished(made, default=[None, None, None], tuned=HIGH, baseline=LOW)
    result = write_result(made, tmp_path / "tuned")
    assert (result["chosen"], result["better"]) == ("tuned", True)
    assert "with which 3 of the trainings with fresh seeds did not come to their end" in result["verdict"]


def test_fewer_confirmations_shorten_values_pairs_and_seeds_alike(plan: MakePlan, tmp_path: Path) -> None:
    finished(plan("cdw_ce", trials=3, confirm=3), default=LOW, tuned=HIGH, baseline=MIDDLE)
    confirmation = write_result(plan("cdw_ce", trials=3, confirm=2), tmp_path / "tuned")["confirmation"]
    assert confirmation["seeds"] == [20_001, 20_002]
    assert confirmation["tuned"]["values"] == HIGH[:2]
    assert confirmation["against_default"]["pairs"] == confirmation["against_baseline"]["pairs"] == 2
    table = pd.read_csv(tmp_path / "tuned" / "trials.csv")
    assert table["role"].str.startswith("confirm").sum() == 4 * 2


def test_where_lower_is_better_the_lowest_trial_is_chosen_and_kept(plan: MakePlan, tmp_path: Path) -> None:
    made = plan("cdw_ce", trials=3, confirm=3, objective="mae")
    bad = [0.9, 0.95, 0.92]
    finished(made, default=HIGH, tuned=LOW, baseline=MIDDLE, baseline_default=bad, search=(0.6, 0.3, 0.5))
    result = write_result(made, tmp_path / "tuned")
    assert (result["trial"]["number"], result["trial"]["value"]) == (1, 0.3)
    assert (result["chosen"], result["better"], result["baseline"]["chosen"]) == ("tuned", True, "tuned")
    assert result["confirmation"]["against_default"]["difference"] > 0


def test_over_folds_the_corrected_test_decides(plan: MakePlan, tmp_path: Path) -> None:
    """The same values are enough over seeds, and not over folds that share training images."""
    tuned, default = [0.60, 0.62, 0.66, 0.61, 0.58], [0.58, 0.58, 0.60, 0.60, 0.57]
    found = {}
    for over in ("seeds", "folds"):
        made = plan("cdw_ce", trials=3, confirm=5, over=over, repeats=1)
        finished(made, default=default, tuned=tuned, baseline=[0.3, 0.31, 0.32, 0.3, 0.33])
        found[over] = write_result(made, tmp_path / over)
    assert [found[over]["chosen"] for over in ("seeds", "folds")] == ["tuned", "default"]
    assert found["folds"]["confirmation"]["folds"] == [1, 2, 3, 4, 0]
    assert "corrected for the training images that folds share" in found["folds"]["confirmation"]["rule"]
    assert "over 5 folds" in found["folds"]["verdict"]
