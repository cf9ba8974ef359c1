"""dvc.yaml says what the steps say: their parameters, and modules that exist."""

import re
from pathlib import Path

import grimp
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


# What a stage runs and whose change leaves its outputs as they are: errors, files written whole, runs logged.
NEUTRAL = {
    "raregrade.errors",
    "raregrade.atomic",
    "raregrade.tracking",
    "raregrade.data.progress",
    "raregrade.training.progress",
    "raregrade.steps.identity",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_can_change_its_outputs(stage: str, graph: grimp.ImportGraph) -> None:
    covered = {dep.removeprefix("src/").removesuffix(".py").replace("/", ".") for dep in STAGES[stage]["deps"]}
    needed = graph.find_upstream_modules(f"raregrade.steps.{stage}") | {f"raregrade.steps.{stage}"}
    missing = [
        module
        for module in sorted(needed)
        if not any(module == name or module.startswith(f"{name}.") for name in covered | NEUTRAL)
        and (ROOT / "src" / module.replace(".", "/")).with_suffix(".py").exists()
    ]
    assert missing == []


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("raregrade")
