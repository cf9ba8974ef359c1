"""dvc.yaml says what the steps say: their parameters, and modules that exist."""

import re
from pathlib import Path

import pytest
import yaml

from raregrade.config import section_keys

ROOT = Path(__file__).resolve().parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_parameters_that_its_step_reads(stage: str) -> None:
    placeholder = "${item.loss}"
    expected = section_keys(stage, placeholder) if "matrix" in STAGES[stage] else section_keys(stage)
    assert sorted(STAGES[stage]["params"]) == sorted(expected)


@pytest.mark.parametrize("stage", STAGES)
def test_the_modules_that_a_stage_depends_on_exist(stage: str) -> None:
    modules = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    assert modules
    assert [dep for dep in modules if not (ROOT / dep).exists()] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_calls_the_command_of_its_name(stage: str) -> None:
    assert re.match(rf"raregrade {stage} ", STAGES[stage]["cmd"])


def test_a_stage_with_side_effects_is_not_restored_from_a_cache() -> None:
    assert STAGES["register"]["outs"] == [{"registered.json": {"cache": False}}]
