"""The DVC stages say what the steps say: their commands, and the parameters that they read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raregrade import __version__
from raregrade.config import load_params, section_keys

ROOT = Path(__file__).resolve().parents[2]
# Where DVC looks for the stages of a project: what `dvc repro` runs, what that may need, and what it leaves alone.
FILES = ["dvc.yaml", "data/raw/dvc.yaml", "register/dvc.yaml"]
# Stages that run the step of another name, on what tuning chose.
STEP_OF = {"train_tuned": "train", "evaluate_tuned": "evaluate"}
CONTENT = {file: yaml.safe_load((ROOT / file).read_text(encoding="utf-8")) for file in FILES}
STAGES: dict[str, Any] = {name: stage for content in CONTENT.values() for name, stage in content["stages"].items()}


def params_of(stage: str) -> list[str]:
    """The keys of params.yaml that a stage names, in whichever form DVC has for it."""
    keys: list[str] = []
    for entry in STAGES[stage]["params"]:
        keys += [entry] if isinstance(entry, str) else next(iter(entry.values()))
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_its_step_reads_and_on_its_version(stage: str) -> None:
    placeholder = "${item.loss}"
    step = STEP_OF.get(stage, stage)
    expected = section_keys(step, placeholder) if "matrix" in STAGES[stage] else section_keys(step)
    version = [] if step == "register" else [f"raregrade.steps.{step}"]
    assert sorted(params_of(stage)) == sorted([*expected, *version])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_calls_the_command_of_its_name(stage: str) -> None:
    assert re.match(rf"raregrade {STEP_OF.get(stage, stage)} ", STAGES[stage]["cmd"])


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_source_files(stage: str) -> None:
    assert [dep for dep in STAGES[stage].get("deps", []) if "src" in dep or dep.endswith(".py")] == []


def test_the_stages_of_dvc_repro_end_at_compare() -> None:
    assert set(CONTENT["dvc.yaml"]["stages"]) == {
        "prepare", "train", "evaluate", "tune", "train_tuned", "evaluate_tuned", "compare",
    }  # fmt: skip


def test_a_stage_with_side_effects_is_not_restored_from_a_cache() -> None:
    assert STAGES["register"]["outs"] == [{"registered.json": {"cache": False}}]


PRESETS = "src/raregrade/presets/phantom"
SHIPPED = ["params.yaml", *(f"{PRESETS}/{name}.yaml" for name in ("short", "imbalanced", "hierarchical"))]


@pytest.mark.parametrize("params", SHIPPED)
def test_parameters_to_be_used_with_dvc_hold_every_key_that_a_stage_names(params: str) -> None:
    given = yaml.safe_load((ROOT / params).read_text(encoding="utf-8"))
    named = {key for stage in STAGES for key in params_of(stage) if "${" not in key}
    assert {"tune.space", "evaluate", "alarms", "raregrade.steps.train"} <= named
    assert [key for key in sorted(named) if not holds(given, key)] == []
    assert "losses" in given["tune"]


def holds(given: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    return isinstance(given, dict) and first in given and (not rest or holds(given[first], rest))


@pytest.mark.parametrize("params", SHIPPED)
def test_parameters_are_for_this_version(params: str) -> None:
    made_for = load_params(ROOT / params).raregrade
    assert {made_for.version, *made_for.steps.model_dump().values()} == {__version__}


@pytest.mark.parametrize("name", [*FILES, "plots/epochs.json", "CHANGELOG.md"])
def test_a_file_of_the_checkout_is_the_one_that_ships_with_the_package(name: str) -> None:
    shipped = ROOT / "src" / "raregrade" / "project" / "files" / name
    assert shipped.read_bytes() == (ROOT / name).read_bytes()
