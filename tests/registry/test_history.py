"""Rolling back and back again, from the history alone; checked against a stack that is kept beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import RegistryError
from raregrade.registry.history import Move, read_history, versions_before, write_history


def _promote(version: str, previous: str | None, alias: str = "champion") -> Move:
    return Move(alias, "promote", version, previous, "2026-01-01T00:00:00+00:00", "someone")


def _rollback(version: str, previous: str) -> Move:
    return Move("champion", "rollback", version, previous, "2026-01-01T00:00:00+00:00", "someone")


def test_rollback_walks_back_through_the_promotions() -> None:
    moves = [_promote("1", None), _promote("2", "1"), _promote("3", "2")]
    assert versions_before(moves, "champion", "3") == ["2", "1"]
    moves.append(_rollback("2", "3"))
    assert versions_before(moves, "champion", "2") == ["1"]
    moves.append(_rollback("1", "2"))
    assert versions_before(moves, "champion", "1") == []


def test_aliases_have_their_own_past() -> None:
    moves = [_promote("1", None), _promote("5", None, "staging"), _promote("2", "1")]
    assert versions_before(moves, "staging", "5") == []
    assert versions_before(moves, "champion", "2") == ["1"]


def test_an_alias_moved_by_hand_goes_back_to_its_last_known_holder() -> None:
    moves = [_promote("1", None), _promote("2", "1")]
    assert versions_before(moves, "champion", "7") == ["2", "1"]


def test_without_history_there_is_nothing_before() -> None:
    assert versions_before([], "champion", "1") == []


@given(st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=30))
def test_the_history_agrees_with_a_stack(actions: list[int | None]) -> None:
    """An integer promotes that version, None rolls back where that is possible."""
    moves: list[Move] = []
    stack: list[str] = []
    for action in actions:
        if action is not None and (not stack or stack[-1] != str(action)):
            moves.append(_promote(str(action), stack[-1] if stack else None))
            stack.append(str(action))
        elif action is None and len(stack) > 1:
            previous = stack.pop()
            moves.append(_rollback(stack[-1], previous))
    if stack:
        before = versions_before(moves, "champion", stack[-1])
        assert before == [version for version in stack[-2::-1] if version != stack[-1]]


def test_the_history_survives_the_tag_and_loses_the_oldest_first() -> None:
    moves = [_promote(str(i), str(i - 1)) for i in range(1, 100)]
    text = write_history(moves)
    assert len(text) <= 5000
    kept = read_history(text)
    assert kept == moves[-len(kept) :]
    assert len(kept) > 20
    assert versions_before(kept, "champion", "99")[:3] == ["98", "97", "96"]


def test_a_tag_that_was_changed_by_hand_is_reported() -> None:
    assert read_history(None) == []
    with pytest.raises(RegistryError, match=r"raregrade\.history"):
        read_history("[{")
