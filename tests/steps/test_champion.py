"""``champion`` without a registry; with one, the pipeline ``retrain_and_promote`` tests it."""

import pytest

from raregrade.config import params_from_dict, section
from raregrade.errors import DataError, ModelError
from raregrade.steps import champion as module
from raregrade.steps.champion import champion, has_champion
from raregrade.steps.evaluate_champion import evaluate_champion


@pytest.fixture
def params():
    return params_from_dict(
        {
            "data": {"source": "phantom", "path": "x", "task": "ordinal", "classes": ["a", "b"]},
            "losses": {"ce": {}, "cdw_ce": {"power": 3.0}},
            "compare": {"losses": ["ce", "cdw_ce"], "seeds": [4, 5], "baseline": "ce", "confidence": 0.9},
        }
    )


def test_without_a_champion_the_recipe_is_that_of_the_parameters(params, tmp_path, no_tracking):
    default = section(params, "train", "cdw_ce")
    recipe = champion(default, section(params, "compare"), "grades", tmp_path / "out", tracking=no_tracking)
    assert (recipe.section, recipe.seeds, recipe.version, recipe.previous) == (default, (4, 5), None, None)
    compare = recipe.compare.compare
    assert (compare.losses, compare.baseline, compare.seeds, compare.confidence) == (["cdw_ce"], "cdw_ce", [4, 5], 0.9)
    assert not has_champion(tmp_path / "out")


def test_without_a_champion_there_is_nothing_to_judge(params, tmp_path, no_tracking):
    (tmp_path / "empty").mkdir()
    metrics = evaluate_champion(
        section(params, "evaluate"), tmp_path / "empty", tmp_path / "data", tmp_path / "out", tracking=no_tracking
    )
    assert metrics == {}
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def card(params):
    part = section(params, "train", "cdw_ce")
    return {
        "loss": part.loss.model_dump(mode="json"),
        "train": part.train.model_dump(mode="json"),
        "dataset": {"content_hash": "0123456789abcdef"},
    }


@pytest.fixture
def with_champion(monkeypatch, card):
    """A registry whose champion has ``card``."""
    monkeypatch.setattr(module, "_download", lambda name, tracking, out: (card, "7"))


@pytest.mark.usefixtures("with_champion")
@pytest.mark.parametrize("store", [None, "elsewhere"])
def test_a_champion_whose_splits_are_not_known_is_not_retrained(params, tmp_path, no_tracking, store):
    with pytest.raises(DataError, match=r"version 7.*(patients keep their splits|test patients could end up)"):
        champion(
            section(params, "train", "ce"),
            section(params, "compare"),
            "grades",
            tmp_path / "out",
            tracking=no_tracking,
            store=None if store is None else tmp_path / store,
        )


@pytest.mark.usefixtures("with_champion")
@pytest.mark.parametrize("broken", [{"train": {"lr": -1.0}}, {"train": {"gone": 1}}, {"loss": {"name": "ce"}}])
def test_a_champion_with_settings_that_no_longer_exist_says_so(params, tmp_path, no_tracking, card, broken):
    card.update(broken)
    with pytest.raises(ModelError, match="version 7 of grades, the champion, does not say how it was trained"):
        champion(
            section(params, "train", "ce"), section(params, "compare"), "grades", tmp_path / "out", tracking=no_tracking
        )
