"""dvc.yaml says what the steps say: their parameters, and modules that exist."""

import re
from pathlib import Path

import grimp
import pytest
import yaml

from raregrade.config import section_keys

ROOT = Path(__file__).resolve().parents[2]
# Stages that run the step of another name, on what tuning chose.
STEP_OF = {"train_tuned": "train", "evaluate_tuned": "evaluate"}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_parameters_that_its_step_reads(stage: str) -> None:
    placeholder = "${item.loss}"
    step = STEP_OF.get(stage, stage)
    expected = section_keys(step, placeholder) if "matrix" in STAGES[stage] else section_keys(step)
    assert sorted(STAGES[stage]["params"]) == sorted(expected)


@pytest.mark.parametrize("stage", STAGES)
def test_the_modules_that_a_stage_depends_on_exist(stage: str) -> None:
    modules = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    assert modules
    assert [dep for dep in modules if not (ROOT / dep).exists()] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_calls_the_command_of_its_name(stage: str) -> None:
    assert re.match(rf"raregrade {STEP_OF.get(stage, stage)} ", STAGES[stage]["cmd"])


SHIPPED = [
    "params.yaml",
    "src/raregrade/presets/phantom/imbalanced.yaml",
    "src/raregrade/presets/phantom/hierarchical.yaml",
]


@pytest.mark.parametrize("params", SHIPPED)
def test_parameters_to_be_used_with_dvc_hold_every_key_that_a_stage_names(params: str) -> None:
    given = yaml.safe_load((ROOT / params).read_text(encoding="utf-8"))
    named = {key for stage in STAGES.values() for key in stage["params"] if "${" not in key}
    assert {"tune.space", "evaluate", "alarms"} <= named
    assert [key for key in sorted(named) if not _holds(given, key)] == []
    assert "losses" in given["tune"]


def _holds(given: dict[str, object], key: str) -> bool:
    first, _, rest = key.partition(".")
    value = given.get(first)
    return first in given and (not rest or (isinstance(value, dict) and _holds(value, rest)))


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
    step = f"raregrade.steps.{STEP_OF.get(stage, stage)}"
    needed = graph.find_upstream_modules(step) | {step}
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
