"""Aliases in a real MLflow registry: moved through the gate, moved back, and what is said when it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from raregrade.config import AlarmConfig, GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError, RegistryError, UserError
from raregrade.registry import fetch_model, list_models, promote, register_winner, rollback
from raregrade.registry.catalog import DATASET_TAG, RECORD_TAG
from raregrade.registry.history import HISTORY_TAG
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client

NAME = "phantom-severity"
# The models of these tests have random weights.
QUIET = AlarmConfig(refuse=False)
FLOOR = [GateRule(metric="val_qwk", threshold=0.4, min_absolute_change=0.0)]


@pytest.fixture
def client(tracking: Tracking) -> Any:
    return open_client(tracking.uri)


@pytest.fixture
def add_version(client: Any) -> Callable[..., str]:
    """``add_version(qwk)`` registers a version that has these metrics in its tags; no files, which nobody reads."""

    def add(qwk: float, dataset_hash: str = "data1", gate: list[GateRule] = FLOOR) -> str:
        if not client.search_registered_models(f"name = '{NAME}'"):
            client.create_registered_model(NAME)
        tags = {
            DATASET_TAG: dataset_hash,
            RECORD_TAG: json.dumps(
                {"metrics": {"val_qwk": qwk}, "rules": [rule.model_dump(mode="json") for rule in gate]}
            ),
        }
        return str(client.create_model_version(NAME, source="file:///nowhere", tags=tags).version)

    return add


def _holder(tracking: Tracking, alias: str = "champion") -> str | None:
    return next((v.version for v in list_models(NAME, tracking) if alias in v.aliases), None)


def test_a_better_version_becomes_champion(tracking: Tracking, add_version: Callable[..., str]) -> None:
    first, second = add_version(0.5), add_version(0.6)
    result = promote(NAME, first, tracking=tracking)
    assert (result.moved, result.previous) == (True, None)
    result = promote(NAME, second, tracking=tracking)
    assert (result.moved, result.previous, result.alias) == (True, first, "champion")
    assert "0.6000 against 0.5000 of the champion (version 1)" in result.remarks[1]
    assert _holder(tracking) == second


def test_a_worse_version_is_refused_and_the_champion_stays(tracking: Tracking, add_version: Callable[..., str]) -> None:
    first, second = add_version(0.6), add_version(0.5)
    promote(NAME, first, tracking=tracking)
    with pytest.raises(GateRefusedError, match=r"0\.5000 against 0\.6000") as caught:
        promote(NAME, second, tracking=tracking)
    assert caught.value.exit_code == 3
    assert _holder(tracking) == first


def test_the_champion_of_the_moment_counts_not_the_one_at_registration(
    tracking: Tracking, add_version: Callable[..., str]
) -> None:
    versions = [add_version(qwk) for qwk in (0.5, 0.6, 0.7)]
    promote(NAME, versions[0], tracking=tracking)
    promote(NAME, versions[1], tracking=tracking, dry_run=True)
    promote(NAME, versions[2], tracking=tracking)
    with pytest.raises(GateRefusedError):
        promote(NAME, versions[1], tracking=tracking)


def test_the_rules_given_replace_the_recorded_ones(tracking: Tracking, add_version: Callable[..., str]) -> None:
    version = add_version(0.3)
    with pytest.raises(GateRefusedError, match="below the floor"):
        promote(NAME, version, tracking=tracking)
    assert promote(NAME, version, tracking=tracking, gate=[]).moved


def test_a_dry_run_moves_nothing(tracking: Tracking, add_version: Callable[..., str], client: Any) -> None:
    version = add_version(0.5)
    result = promote(NAME, version, tracking=tracking, dry_run=True)
    assert (result.moved, result.version) == (False, version)
    assert _holder(tracking) is None
    assert HISTORY_TAG not in client.get_registered_model(NAME).tags


def test_promoting_the_champion_again_moves_nothing(tracking: Tracking, add_version: Callable[..., str]) -> None:
    version = add_version(0.5)
    promote(NAME, version, tracking=tracking)
    again = promote(NAME, version, tracking=tracking)
    assert (again.moved, again.previous) == (False, version)
    with pytest.raises(RegistryError, match="before version 1"):
        rollback(NAME, tracking=tracking)


def test_rollback_walks_back_one_champion_at_a_time(
    tracking: Tracking, add_version: Callable[..., str], client: Any
) -> None:
    versions = [add_version(qwk) for qwk in (0.5, 0.6, 0.7)]
    for version in versions:
        promote(NAME, version, tracking=tracking)
    result = rollback(NAME, tracking=tracking)
    assert (result.version, result.previous, result.moved) == (versions[1], versions[2], True)
    assert rollback(NAME, tracking=tracking).version == versions[0]
    with pytest.raises(RegistryError, match="raregrade promote"):
        rollback(NAME, tracking=tracking)
    assert _holder(tracking) == versions[0]
    history = json.loads(client.get_registered_model(NAME).tags[HISTORY_TAG])
    assert [(move["action"], move["version"]) for move in history] == [
        ("promote", "1"),
        ("promote", "2"),
        ("promote", "3"),
        ("rollback", "2"),
        ("rollback", "1"),
    ]


def test_rollback_steps_over_versions_that_were_deleted(
    tracking: Tracking, add_version: Callable[..., str], client: Any
) -> None:
    versions = [add_version(qwk) for qwk in (0.5, 0.6, 0.7)]
    for version in versions:
        promote(NAME, version, tracking=tracking)
    client.delete_model_version(NAME, versions[1])
    assert rollback(NAME, tracking=tracking).version == versions[0]


def test_other_aliases_are_moved_and_rolled_back_by_themselves(
    tracking: Tracking, add_version: Callable[..., str]
) -> None:
    versions = [add_version(qwk) for qwk in (0.5, 0.6)]
    for version in versions:
        promote(NAME, version, alias="staging", tracking=tracking)
    assert rollback(NAME, alias="staging", tracking=tracking).version == versions[0]
    assert (_holder(tracking), _holder(tracking, "staging")) == (None, versions[0])


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "", "a b"])
def test_an_alias_that_mlflow_keeps_for_itself_is_refused(
    tracking: Tracking, add_version: Callable[..., str], alias: str
) -> None:
    with pytest.raises(RegistryError, match="MLflow keeps"):
        promote(NAME, add_version(0.5), alias=alias, tracking=tracking)


def test_what_does_not_exist_is_answered_with_what_does(
    tracking: Tracking, add_version: Callable[..., str], tmp_path: Any
) -> None:
    with pytest.raises(RegistryError, match="registered: none; `raregrade register` adds one"):
        promote("unknown", "1", tracking=tracking)
    add_version(0.5)
    add_version(0.6)
    with pytest.raises(RegistryError, match=f"'unknown'; registered: {NAME}"):
        promote("unknown", "1", tracking=tracking)
    with pytest.raises(RegistryError, match="no version 7; versions: 1, 2"):
        promote(NAME, "7", tracking=tracking)
    with pytest.raises(RegistryError, match="has no champion"):
        rollback(NAME, tracking=tracking)
    with pytest.raises(RegistryError, match="unknown"):
        list_models("unknown", tracking)
    promote(NAME, "1", tracking=tracking)
    with pytest.raises(RegistryError, match=r"no alias 'challenger'; aliases: champion \(version 1\)"):
        fetch_model(f"models:/{NAME}@challenger", tracking, tmp_path)
    with pytest.raises(RegistryError, match="models:/NAME@ALIAS"):
        fetch_model("models:/x", tracking, tmp_path)


def test_versions_from_different_data_need_the_dataset(tracking: Tracking, add_version: Callable[..., str]) -> None:
    first, second = add_version(0.5, "data1"), add_version(0.9, "data2")
    promote(NAME, first, tracking=tracking)
    with pytest.raises(GateRefusedError, match="Give the prepared dataset"):
        promote(NAME, second, tracking=tracking)


def test_given_a_dataset_both_versions_are_measured_on_it(
    dataset: PreparedDataset, other_dataset: PreparedDataset, compare: Callable[..., Any], tracking: Tracking
) -> None:
    gate = [GateRule(metric="val_auroc", min_absolute_change=-1.0)]
    for data, winner in ((dataset, "ce"), (other_dataset, "cdw_ce")):
        contest = compare(data, winner=winner)
        register_winner(
            comparison=contest.comparison,
            models=contest.models,
            data=data.root,
            gate=gate,
            name=NAME,
            tracking=tracking,
        )
    promote(NAME, "1", tracking=tracking)
    recorded = {v.version: v.metrics["val_auroc"] for v in list_models(NAME, tracking)}
    on_new = promote(NAME, "2", tracking=tracking, data=other_dataset.root, dry_run=True, alarms=QUIET).remarks[-1]
    on_old = promote(NAME, "2", tracking=tracking, data=dataset.root, dry_run=True, alarms=QUIET).remarks[-1]
    assert f"val_auroc {recorded['2']:.4f} against" in on_new
    assert f"against {recorded['1']:.4f} of" in on_old
    assert on_new != on_old


def test_without_tracking_there_is_no_registry() -> None:
    with pytest.raises(UserError, match=r"Set tracking\.uri"):
        list_models(None, Tracking("none", "grades"))


def test_models_are_listed_by_name_and_newest_first(
    tracking: Tracking, add_version: Callable[..., str], client: Any
) -> None:
    for _ in range(3):
        add_version(0.5)
    client.create_registered_model("another's")
    client.create_model_version("another's", source="file:///nowhere")
    listed = [(v.name, v.version) for v in list_models(None, tracking)]
    assert listed == [("another's", "1"), (NAME, "3"), (NAME, "2"), (NAME, "1")]
