"""A candidate and a champion predict the same images: what is tested between them, and which alarms are raised."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from raregrade.config import AlarmConfig, GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError
from raregrade.models.decisions import Decision
from raregrade.models.folder import load_model, read_card
from raregrade.registry import fetch_model, list_models, promote, register_winner
from raregrade.registry.catalog import DECISION_TAG
from raregrade.registry.measured import differences, measure
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client

Compare = Callable[..., Any]
MakeModel = Callable[..., Any]
NAME = "phantom-severity"
SUPERIOR = [GateRule(metric="test_qwk", superior=True)]
QUIET = AlarmConfig(refuse=False)


def _register(contest: Any, data: PreparedDataset | None, tracking: Tracking, **settings: Any) -> Any:
    settings = {"gate": [], "alarms": QUIET} | settings
    return register_winner(
        comparison=contest.comparison,
        models=contest.models,
        data=None if data is None else data.root,
        name=NAME,
        tracking=tracking,
        **settings,
    )


@pytest.fixture
def crowned(large_dataset: PreparedDataset, compare: Compare, tracking: Tracking) -> Compare:
    """``crowned(learned)`` makes ce champion, a model that has learned or a random one; cdw_ce is the other kind."""

    def crown(*learned: str) -> Any:
        contest = compare(large_dataset, winner="ce", learned=learned)
        assert _register(contest, large_dataset, tracking).registered
        promote(NAME, "1", tracking=tracking, gate=[], alarms=QUIET)
        return compare(large_dataset, winner="cdw_ce", learned=learned)

    return crown


def test_a_trained_model_is_shown_to_beat_a_random_champion(
    large_dataset: PreparedDataset, crowned: Compare, tracking: Tracking
) -> None:
    contest = crowned("cdw_ce")
    result = _register(contest, large_dataset, tracking, gate=SUPERIOR)
    assert (result.registered, result.version) == (True, "2")
    sentence = result.remarks[-1]
    assert sentence.startswith("test_qwk is better than that of the champion (version 1): better by +")
    gain, low, high = map(float, re.findall(r"[+-]\d\.\d+", sentence))
    champion = list_models(NAME, tracking)[-1]
    assert gain == pytest.approx(result.metrics["test_qwk"] - champion.metrics["test_qwk"], abs=1e-4)
    assert 0 < low < gain < high

    moved = promote(NAME, "2", tracking=tracking, gate=SUPERIOR, alarms=QUIET, data=large_dataset.root)
    assert (moved.moved, moved.remarks[-1]) == (True, sentence)


def test_a_challenger_as_good_as_the_champion_is_non_inferior_only(
    large_dataset: PreparedDataset, crowned: Compare, tracking: Tracking
) -> None:
    contest = crowned("ce", "cdw_ce")
    refused = _register(contest, large_dataset, tracking, gate=SUPERIOR)
    assert not refused.registered
    assert refused.reasons[0].startswith("test_qwk is not shown to be better than that of the champion (version 1)")
    lenient = [GateRule(metric="test_qwk", non_inferior=0.9)]
    assert _register(contest, large_dataset, tracking, gate=lenient).registered


def test_no_champion_is_replaced_untested_if_the_gate_asks_for_a_test(
    large_dataset: PreparedDataset, crowned: Compare, tracking: Tracking
) -> None:
    contest = crowned("cdw_ce")
    refused = _register(contest, None, tracking, gate=SUPERIOR)
    assert refused.reasons == (
        "test_qwk is not shown to be better than that of the champion (version 1): both have to predict the same "
        "images. Give the prepared dataset (`--data`)",
    )
    assert _register(contest, large_dataset, tracking, gate=SUPERIOR).registered
    with pytest.raises(GateRefusedError, match="Give the prepared dataset"):
        promote(NAME, "2", tracking=tracking, gate=SUPERIOR, alarms=QUIET)
    floors_alone = promote(NAME, "2", tracking=tracking, gate=[], dry_run=True, alarms=QUIET)
    assert "no alarm could be raised against the champion: no dataset was given" in floors_alone.remarks


def test_a_challenger_that_lost_a_grade_is_refused_whatever_the_rules_say(
    large_dataset: PreparedDataset, crowned: Compare, tracking: Tracking
) -> None:
    contest = crowned("ce")
    floor = [GateRule(metric="val_qwk", threshold=-1.0)]
    refused = _register(contest, large_dataset, tracking, gate=floor, alarms=AlarmConfig())
    assert not refused.registered
    assert re.match(r"cdw_ce (never predicts|finds \d+ of \d+) .*the champion \(version 1\)", refused.reasons[0])
    assert not any("reaches the floor" in reason for reason in refused.reasons)
    assert list(refused.alarms) == list(refused.reasons)

    assert _register(contest, large_dataset, tracking, gate=floor).registered
    description = open_client(tracking.uri).get_model_version(NAME, "2").description
    assert description.startswith(f"Alarm: {refused.reasons[0]}.\n\n")
    with pytest.raises(GateRefusedError) as caught:
        promote(NAME, "2", tracking=tracking, gate=floor, data=large_dataset.root)
    heading, first, *_ = str(caught.value).splitlines()
    assert heading == f"the gate refused {NAME} version 2 as champion:"
    assert first.startswith("  version 2 ")
    assert "reaches the floor" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_alarms_are_raised_against_the_champion_of_the_moment(
    large_dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    for winner in ("ce", "cdw_ce"):  # no champion yet, so neither raises an alarm
        contest = compare(large_dataset, winner=winner, learned=("ce",))
        assert _register(contest, large_dataset, tracking, alarms=AlarmConfig()).alarms == ()
    promote(NAME, "1", tracking=tracking, gate=[], alarms=QUIET)
    with pytest.raises(GateRefusedError, match=r"  version 2 .*the champion \(version 1\)"):
        promote(NAME, "2", tracking=tracking, gate=[], data=large_dataset.root)


def test_alarms_at_registration_refuse_a_promotion_also_without_images(
    large_dataset: PreparedDataset, crowned: Compare, tracking: Tracking
) -> None:
    _register(crowned("ce"), large_dataset, tracking)
    with pytest.raises(GateRefusedError, match=r"  version 2 .*the champion \(version 1\)"):
        promote(NAME, "2", tracking=tracking, gate=[])
    assert promote(NAME, "2", tracking=tracking, gate=[], alarms=QUIET).moved


def test_a_model_does_not_differ_from_itself(large_dataset: PreparedDataset, make_model: MakeModel) -> None:
    own = measure(load_model(make_model(large_dataset)), large_dataset, name="m")
    assert {(d.mean, d.standard_error, d.df) for d in differences(own, own).values()} == {(0.0, 0.0, None)}


def _deciding(rule: str) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["recommended"]["decision"] = {"rule": rule}

    return edit


def test_another_decision_rule_makes_another_version_that_uses_it(
    large_dataset: PreparedDataset, compare: Compare, tracking: Tracking, tmp_path: Any
) -> None:
    for rule, version in (("argmax", "1"), ("median", "2"), ("argmax", "1"), ("median", "2")):
        contest = compare(large_dataset, learned=("cdw_ce",), edit=_deciding(rule))
        result = _register(contest, large_dataset, tracking)
        assert (result.version, result.decision) == (version, {"rule": rule})
    folder = fetch_model(f"models:/{NAME}/2", tracking, tmp_path / "fetched")
    assert read_card(folder)["decision"] == {"rule": "median"}
    model = load_model(folder)
    assert model.decision == Decision("median")
    probs = model.probabilities(model.predict(large_dataset.images(large_dataset.rows("test"))))
    assert (model.decision.decide(probs) != probs.argmax(axis=1)).any()


def test_a_version_from_before_decision_rules_were_recorded_is_known_again(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    contest = compare(dataset)
    _register(contest, dataset, tracking)
    open_client(tracking.uri).delete_model_version_tag(NAME, "1", DECISION_TAG)
    assert _register(contest, dataset, tracking).version == "1"
    assert _register(compare(dataset, edit=_deciding("median")), dataset, tracking).version == "2"


def test_the_champion_is_measured_by_its_own_decision_rule(
    large_dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    """The same weights: where the two rules decide alike they would not differ."""
    contest = compare(large_dataset, learned=("cdw_ce",), edit=_deciding("argmax"))
    _register(contest, large_dataset, tracking)
    promote(NAME, "1", tracking=tracking, gate=[], alarms=QUIET)
    contest = compare(large_dataset, learned=("cdw_ce",), edit=_deciding("median"))
    result = _register(contest, large_dataset, tracking, gate=[GateRule(metric="test_mae", non_inferior=1.0)])
    model = load_model(next(folder for folder in contest.models if "cdw_ce" in folder.parts))
    mae = {
        rule: measure(model, large_dataset, name=rule, decision=Decision(rule)).metrics["test_mae"]  # type: ignore[arg-type]
        for rule in ("argmax", "median")
    }
    assert mae["argmax"] != mae["median"]
    assert f"better by {mae['argmax'] - mae['median']:+.4f}" in result.remarks[-1]
    assert json.loads(list_models(NAME, tracking)[0].tags[DECISION_TAG]) == {"rule": "median"}
