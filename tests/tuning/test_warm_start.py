"""A study begins with the best of earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raregrade.config import LossChoice, StudyStorage
from raregrade.errors import ConfigError
from raregrade.losses import LOSSES
from raregrade.tuning.storage import open_storage
from raregrade.tuning.study import claim, open_study, suggest
from raregrade.tuning.warm_start import warm_starts

from .conftest import MakePlan

CDW_CE = LossChoice(name="cdw_ce", kind="cdw_ce", params=LOSSES["cdw_ce"]())


def best_file(path: Path, kind: str, powers: list[float]) -> str:
    top = [{"values": {"power": power}, "value": 0.5} for power in powers]
    chosen = {"chosen": "tuned", "better": True, "study": {"name": "earlier", "trials": 9}}
    path.write_text(yaml.safe_dump({"schema": 2, "kind": kind, "params": {}, "top": top, **chosen}))
    return str(path)


def test_the_best_settings_of_an_earlier_best_yaml_are_tried_after_the_papers(plan: MakePlan, tmp_path: Path) -> None:
    place = best_file(tmp_path / "best.yaml", "cdw_ce", [3.5, 2.5])
    starts = plan(trials=8, warm_start=[place]).search.starts
    assert [(start.values["power"], start.source) for start in starts] == [
        (5.0, "default"),
        (6.0, "paper"),
        (7.0, "paper"),
        (3.5, "warm_start"),
        (2.5, "warm_start"),
    ]


def test_settings_outside_the_space_are_passed_over(plan: MakePlan, tmp_path: Path) -> None:
    place = best_file(tmp_path / "best.yaml", "cdw_ce", [3.5, 15.0])
    starts = plan(warm_start=[place], space={"cdw_ce": {"power": {"high": 4.0}}}).search.starts
    assert [start.values["power"] for start in starts] == [3.5]


def test_a_file_of_another_loss_is_passed_over(tmp_path: Path) -> None:
    assert warm_starts([best_file(tmp_path / "best.yaml", "lmf", [1.0])], CDW_CE) == []


def test_the_best_three_trials_of_every_study_in_a_storage_are_taken(plan: MakePlan, tmp_path: Path) -> None:
    url = str(tmp_path / "earlier.log")
    shared, small = open_storage(StudyStorage(url=url)), plan(trials=5).search
    study = open_study(shared, small)
    with shared.alive("a"):
        for value in (0.1, 0.2, 0.3, 0.5, 0.4):
            trial = claim(shared, study, small, "a", retries=1)
            assert trial is not None
            suggest(trial, small.spaces)
            study.tell(trial, value)
    expected = [study.trials[number].params for number in (3, 4, 2)]
    assert warm_starts([url], CDW_CE) == expected
    assert warm_starts([url], LossChoice(name="lmf", kind="lmf", params=LOSSES["lmf"]())) == []


@pytest.mark.parametrize("place", ["missing.yaml", "missing.log"])
def test_a_place_that_is_missing_is_named(place: str) -> None:
    with pytest.raises(ConfigError, match=rf"missing\.{place[-3:]}|missing\.yaml"):
        warm_starts([place], CDW_CE)
