"""Every parameters file of the repository loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade.config import load_params, params_from_dict

ROOT = Path(__file__).parents[2]
# Environments describe clusters, and the papers' presets are parts of a parameters file: both have tests of their own.
PARTS = ("environments",)
FILES = [
    ROOT / "params.yaml",
    *sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in PARTS),
    *sorted((ROOT / "src" / "raregrade" / "presets" / "phantom").glob("*.yaml")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_parameters_file_of_the_repository_loads_and_survives_a_round_trip(path: Path) -> None:
    params = load_params(path)
    assert params_from_dict(params.to_dict()) == params
