"""What is written of a finished study, whichever way the confirmation went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from raregrade.tuning.plan import TunePlan
from raregrade.tuning.result import write_result
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import StudyPlan, claim, open_study, suggest

from .conftest import MakePlan


def fill(shared: SharedStorage, small: StudyPlan, values: list[float]) -> None:
    """Finish the trials of a study as if they had been trained, with these values in turn."""
    study = open_study(shared, small)
    with shared.alive("a"):
        for value in values:
            trial = claim(shared, study, small, "a", retries=0)
            assert trial is not None
            suggest(trial, small.spaces)
            trial.set_user_attr("repeat_0", {"value": value, "epoch": 1, "epochs": 2, "resumed_at": 0, "seconds": 1.0})
            study.tell(trial, value)


def finished(made: TunePlan, *, default: list[float], tuned: list[float], baseline: list[float]) -> None:
    """Searches whose second trial is the best, and confirmations with the given values."""
    shared = open_storage(made.storage)
    assert made.baseline is not None
    fill(shared, made.search, [0.3, 0.6, 0.5])
    fill(shared, made.baseline, [0.2, 0.4, 0.1])
    best = open_study(shared, made.search).trials[1].params
    arms = made.confirmations(best, open_study(shared, made.baseline).trials[1].params)
    for name, values in (("default", default), ("tuned", tuned), ("baseline", baseline)):
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
    expected = dict.fromkeys(["search", "baseline", "confirm_default", "confirm_tuned", "confirm_baseline"], 3)
    assert roles == expected
    assert table.loc[table["role"] == "search", "value"].tolist() == [0.3, 0.6, 0.5]
    assert table.loc[table["role"] == "search", "source"].tolist() == ["default", "paper", "paper"]
    pictures = {path.name for path in (tmp_path / "tuned" / "figures").iterdir()}
    assert pictures == {"history.png", "importance.png", "parallel.png", "slice.png"}
