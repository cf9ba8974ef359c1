"""A small valid configuration, and a way to change one key of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Change = Callable[[str, Any], dict[str, Any]]

VALID: dict[str, Any] = {
    "data": {"source": "folder", "path": "images", "task": "ordinal", "classes": ["none", "mild", "severe"]},
    "losses": {"ce": {}, "cdw_ce": {"power": 2.0}, "strong": {"kind": "cdw_ce", "power": 5.0}},
    "compare": {"losses": ["ce", "cdw_ce"], "seeds": [1, 2], "baseline": "ce"},
    "gate": [{"metric": "val_qwk", "threshold": 0.4}],
}


@pytest.fixture
def valid() -> dict[str, Any]:
    """Everything that has no default, and a gate."""
    return copy.deepcopy(VALID)


@pytest.fixture
def changed(valid: dict[str, Any]) -> Change:
    """``changed("train.epochs", 3)``: the valid configuration with one key replaced or added."""

    def change(key: str, value: Any) -> dict[str, Any]:
        *parents, last = key.split(".")
        node = valid
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        return valid

    return change
