"""Step ``promote``: what promoted.json says where the gate refuses and where nothing was registered."""

from __future__ import annotations

import json

import pytest

from raregrade.config import params_from_dict, section
from raregrade.errors import DataError, GateRefusedError
from raregrade.registry import PromotionResult
from raregrade.steps import promote as step


@pytest.fixture
def register_section():
    return section(
        params_from_dict(
            {
                "data": {"source": "phantom", "path": "raw", "task": "ordinal", "classes": ["none", "severe"]},
                "losses": {"ce": {}},
                "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce"},
                "gate": [{"metric": "test_qwk", "superior": True}],
                "alarms": {"guard": ["severe"]},
            }
        ),
        "register",
    )


@pytest.fixture
def promoted(tmp_path, register_section, no_tracking, monkeypatch):
    """``promoted(registered, answer)`` runs the step; the registry answers with a result or an error."""
    monkeypatch.setattr(
        step.PreparedDataset, "open", lambda _: type("Dataset", (), {"content_hash": "abc"})(), raising=True
    )
    asked = {}

    def run(registered, answer=None):
        def move(name, version, **settings):
            asked.update(settings, name=name, version=version)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("raregrade.registry.promote", move)
        path = tmp_path / "registered.json"
        path.write_text(json.dumps(registered))
        value = step.promote(register_section, path, tmp_path, tmp_path / "promoted.json", tracking=no_tracking)
        assert json.loads((tmp_path / "promoted.json").read_text()) == value
        return value, asked

    return run


REGISTERED = {"registered": True, "name": "severity", "version": "2", "reasons": []}


def test_the_rules_and_alarms_of_the_parameters_are_applied_to_the_dataset(promoted, register_section, tmp_path):
    moved = PromotionResult("severity", "champion", "2", "1", True, ("test_qwk is better",))
    value, asked = promoted(REGISTERED, moved)
    assert (asked["gate"], asked["alarms"]) == (register_section.gate, register_section.alarms)
    assert (asked["name"], asked["version"], asked["data"]) == ("severity", "2", tmp_path)
    assert value == {
        "name": "severity",
        "version": "2",
        "previous": "1",
        "promoted": True,
        "moved": True,
        "reasons": [],
        "remarks": ["test_qwk is better"],
    }


def test_a_refusal_is_written_with_its_reasons_in_their_order(promoted):
    error = GateRefusedError("the gate refused:\n  version 2 never predicts severe\n  test_qwk is not shown")
    value, _ = promoted(REGISTERED, error)
    assert (value["promoted"], value["moved"]) == (False, False)
    assert value["reasons"] == ["version 2 never predicts severe", "test_qwk is not shown"]
    assert value["remarks"] == []


def test_a_refusal_of_one_line_is_its_own_reason(promoted):
    value, _ = promoted(REGISTERED, GateRefusedError("the two cannot be compared"))
    assert value["reasons"] == ["the two cannot be compared"]


def test_the_unregistered_is_not_promoted_and_reasons_are_passed_on(promoted):
    value, asked = promoted({**REGISTERED, "registered": False, "version": None, "reasons": ["ce never predicts"]})
    assert asked == {}
    assert value["reasons"] == ["nothing was registered, so there is nothing to promote", "ce never predicts"]


def test_another_file_is_refused(promoted):
    with pytest.raises(DataError, match=r"not what `raregrade register` writes.*Register again"):
        promoted({"registered": True})
