"""Tuned parameters take the place of those of params.yaml, under a name of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raregrade.config import LossChoice, TrainConfig, TrainSection
from raregrade.config.tuned import tuned_facts, tuned_section, with_values
from raregrade.errors import ConfigError
from raregrade.losses import LOSSES


@pytest.fixture
def plain() -> TrainSection:
    return TrainSection(train=TrainConfig(), loss=LossChoice(name="mine", kind="lmf", params=LOSSES["lmf"]()))


def best(path: Path, **change: Any) -> Path:
    study = {"name": "lmf-0123", "trials": 30}
    content = {"schema": 2, "kind": "lmf", "params": {"alpha": 0.3}, "train": {"lr": 0.004}}
    content |= {"chosen": "tuned", "better": True, "study": study} | change
    path.write_text(yaml.safe_dump(content))
    return path


def test_values_go_to_the_loss_or_to_the_training(plain: TrainSection) -> None:
    found = with_values(plain, {"alpha": 0.2, "train.lr": 0.01})
    assert found.loss.params.alpha == 0.2  # type: ignore[attr-defined]
    assert found.train.lr == 0.01
    assert found.loss.params.beta == plain.loss.params.beta  # type: ignore[attr-defined]


def test_a_tuned_section_trains_with_best_yaml_and_is_called_tuned(plain: TrainSection, tmp_path: Path) -> None:
    found = tuned_section(plain, best(tmp_path / "best.yaml"))
    assert (found.loss.name, found.loss.kind) == ("mine-tuned", "lmf")
    assert found.loss.params.alpha == 0.3  # type: ignore[attr-defined]
    assert found.train.lr == 0.004


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cdw_ce"}, "holds parameters of cdw_ce, and the loss to train is lmf"),
        ({"schema": 1}, "holds no tuned parameters of this version. Run `raregrade tune` again"),
        ({"params": {"alpha": -1.0}}, r"alpha = -1\.0"),
        ({"params": {"alfa": 1.0}}, "alfa"),
        ({"train": {"lr": 0}}, "lr = 0"),
    ],
)
def test_a_best_yaml_that_does_not_fit_is_refused(
    plain: TrainSection, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tuned_section(plain, best(tmp_path / "best.yaml", **change))


def test_a_best_yaml_that_is_missing_is_named(plain: TrainSection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*best\.yaml.*`raregrade tune` writes it"):
        tuned_section(plain, tmp_path / "best.yaml")


def test_what_a_card_says_of_the_study_is_read_from_best_yaml(tmp_path: Path) -> None:
    path = best(tmp_path / "best.yaml", chosen="default", better=False)
    expected = {"study": "lmf-0123", "chosen": "default", "better": False, "trials": 30, "seen": "val"}
    assert tuned_facts(path) == expected
