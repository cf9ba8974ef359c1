"""The compiled pipeline: the file in the repository, its signature, and what must not be in it."""

import re
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from components.image import IMAGE
from pipelines.compile import NAMES, committed_yaml, compile_pipeline, load_pipeline
from raregrade.errors import UserError

REGENERATE = "run `raregrade pipeline compile` and commit what it writes"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    out = tmp_path_factory.mktemp("compiled") / "compare_losses.yaml"
    compile_pipeline("compare_losses", out)
    return out, list(yaml.safe_load_all(out.read_text()))


@pytest.fixture
def spec(documents):
    return documents[1][0]


def without_versions(text):
    text = re.sub(r"sdkVersion: kfp-\S+", "sdkVersion: kfp-X", text)
    return re.sub(r"image: localhost/raregrade:\S+", "image: localhost/raregrade:X", text)


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_in_the_repository_is_what_the_pipeline_compiles_to(name, tmp_path):
    compile_pipeline(name, tmp_path / "new.yaml")
    assert without_versions(committed_yaml(name).read_text()) == without_versions(
        (tmp_path / "new.yaml").read_text()
    ), REGENERATE


def test_the_yaml_in_the_repository_names_the_image_of_this_version():
    images = re.findall(r"image: (\S+)", committed_yaml("compare_losses").read_text())
    assert set(images) == {IMAGE}
    assert len(images) == 5


def test_the_signature_is_what_runs_and_schedules_rely_on(spec):
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: (p["parameterType"], p.get("defaultValue", "required")) for name, p in inputs.items()} == {
        "runs": ("LIST", "required"),
        "prepare": ("STRUCT", "required"),
        "evaluate": ("STRUCT", "required"),
        "compare": ("STRUCT", "required"),
        "register": ("STRUCT", "required"),
        "raw_data": ("STRING", "required"),
        "data_revision": ("STRING", "required"),
        "store": ("STRING", ""),
        "tracking_uri": ("STRING", "none"),
        "experiment": ("STRING", "raregrade"),
    }
    assert set(spec["root"]["outputDefinitions"]["artifacts"]) == {"comparison", "registration"}


def test_nothing_is_installed_when_a_task_runs(documents):
    text = documents[0].read_text()
    assert "pip install" not in text
    assert "ensurepip" not in text


def test_nothing_in_it_belongs_to_one_machine(documents):
    text = documents[0].read_text()
    assert str(Path.home()) not in text
    assert str(Path(__file__).resolve().parents[2]) not in text
    assert "http" not in text


def crossing_parameters(spec):
    """Parameter outputs of tasks that enter a loop: kfp.local puts the loop item in their place, without a word."""
    dags = {"root": spec["root"], **spec["components"]}
    return [
        f"{task['taskInfo']['name']}: {name}"
        for component in dags.values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task or "artifactIterator" in task
        for name, source in task.get("inputs", {}).get("parameters", {}).items()
        if "taskOutputParameter" in source
    ]


def test_no_parameter_output_crosses_into_a_loop(spec):
    assert crossing_parameters(spec) == []


def test_a_parameter_output_that_crosses_into_a_loop_is_found(tmp_path):
    @dsl.component(base_image="x", install_kfp_package=False)
    def count() -> int:
        return 1

    @dsl.component(base_image="x", install_kfp_package=False)
    def use(item: str, number: int):
        pass

    @dsl.pipeline(name="crossing")
    def crossing(items: list[str]):
        counted = count()
        with dsl.ParallelFor(items=items, name="loop") as item:
            use(item=item, number=counted.output)

    compiler.Compiler().compile(crossing, str(tmp_path / "crossing.yaml"))
    assert crossing_parameters(yaml.safe_load((tmp_path / "crossing.yaml").read_text())) == [
        "loop: pipelinechannel--count-Output"
    ]


def test_registration_is_never_taken_from_the_cache_and_the_rest_may_be(spec):
    tasks = {**spec["root"]["dag"]["tasks"], **spec["components"]["comp-for-loop-1"]["dag"]["tasks"]}
    cached = {
        name: task["cachingOptions"].get("enableCache", False) for name, task in tasks.items() if name != "for-loop-1"
    }
    assert cached == {
        "prepare-dataset": True,
        "train-model": True,
        "evaluate-model": True,
        "compare-models": True,
        "register-model": False,
    }


def test_the_run_id_reaches_each_task_by_its_environment_and_no_input_of_it(documents):
    """As an input it would differ in every run, and nothing would ever be taken from the cache."""
    text, (spec, platform) = documents[0].read_text(), documents[1]
    assert "{{$.pipeline_job" not in text
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    for executor in executors.values():
        assert executor["fieldPathAsEnv"] == [
            {"name": "RAREGRADE_GROUP", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]


def test_comparison_and_registration_wait_for_all_runs_of_the_loop(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert "for-loop-1" in tasks["compare-models"]["dependentTasks"]
    assert {"compare-models", "for-loop-1"} <= set(tasks["register-model"]["dependentTasks"])


def test_an_unknown_pipeline_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match=r"unknown pipeline 'compare'; there is compare_losses"):
        load_pipeline("compare")
