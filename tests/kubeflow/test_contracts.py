"""What holds for every pipeline: the file in the repository, its signature, what must not be in it."""

import re
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from raregrade.errors import UserError
from raregrade.kubeflow.compile import NAMES, committed_yaml, compile_pipeline, load_pipeline
from raregrade.kubeflow.environments import load_environment
from raregrade.kubeflow.images import IMAGE

ROOT = Path(__file__).resolve().parents[2]
REGENERATE = "run `raregrade pipeline compile` and commit what it writes"
REQUIRED = "required"

# Parameters with type and default, and the artifacts that a run hands over. Schedules and scripts rely on them.
COMMON = {
    "data_repo": ("STRING", ""),
    "data_revision": ("STRING", ""),
    "store": ("STRING", ""),
    "tracking_uri": ("STRING", "none"),
    "experiment": ("STRING", "raregrade"),
    "prepare": ("STRUCT", REQUIRED),
    "evaluate": ("STRUCT", REQUIRED),
    "compare": ("STRUCT", REQUIRED),
    "raw_data": ("STRING", REQUIRED),
}
SIGNATURES = {
    "compare_losses": COMMON | {"runs": ("LIST", REQUIRED), "register": ("STRUCT", REQUIRED)},
    "cross_validate": COMMON | {"runs": ("LIST", REQUIRED)},
    "retrain_and_promote": COMMON | {"default": ("STRUCT", REQUIRED), "register": ("STRUCT", REQUIRED)},
    "tune_loss": COMMON
    | {"workers": ("LIST", REQUIRED), "runs": ("LIST", REQUIRED)}
    | dict.fromkeys(("tune", "storage", "register"), ("STRUCT", REQUIRED)),
}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def text(name, tmp_path_factory):
    """A fresh compile that belongs to no cluster."""
    out = tmp_path_factory.mktemp("compiled") / f"{name}.yaml"
    compile_pipeline(name, out)
    return out.read_text()


@pytest.fixture(scope="module")
def spec(text):
    return next(yaml.safe_load_all(text))


def without_versions(text):
    text = re.sub(r"sdkVersion: kfp-\S+", "sdkVersion: kfp-X", text)
    return re.sub(r"image: localhost/raregrade:\S+", "image: localhost/raregrade:X", text)


def groups(spec):
    """The tasks of the pipeline itself, and of each loop, branch or exit handler in it."""
    return [c["dag"]["tasks"] for c in (spec["root"], *spec["components"].values()) if "dag" in c]


def test_the_yaml_in_the_repository_is_what_the_pipeline_compiles_to(name, text):
    assert without_versions(committed_yaml(name).read_text()) == without_versions(text), REGENERATE


def test_the_yaml_in_the_repository_names_the_image_of_this_version_for_every_task(name, spec):
    images = re.findall(r"image: (\S+)", committed_yaml(name).read_text())
    assert set(images) == {IMAGE}
    assert len(images) == len(spec["deploymentSpec"]["executors"])


def test_the_signature_is_what_runs_and_schedules_rely_on(name, spec):
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {n: (p["parameterType"], p.get("defaultValue", REQUIRED)) for n, p in inputs.items()} == SIGNATURES[name]


def test_nothing_is_installed_when_a_task_runs(text):
    assert "pip install" not in text
    assert "ensurepip" not in text


def test_nothing_in_it_belongs_to_one_machine_or_one_cluster(text):
    assert str(Path.home()) not in text
    assert str(ROOT) not in text
    assert "http" not in text
    for setting in ("pvcMount", "secretAsEnv", "tolerations", "nodeSelector", "accelerator", "retryPolicy"):
        assert setting not in text


def crossing_parameters(spec):
    """Parameter outputs of tasks that enter a loop: kfp.local puts the loop item in their place, without a word.

    The items of the loop itself are meant to enter it.
    """
    return [
        f"{task['taskInfo']['name']}: {name}"
        for tasks in groups(spec)
        for task in tasks.values()
        if "parameterIterator" in task or "artifactIterator" in task
        for name, source in task.get("inputs", {}).get("parameters", {}).items()
        if "taskOutputParameter" in source
        and name != task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
    ]


def test_no_parameter_output_crosses_into_a_loop(spec):
    assert crossing_parameters(spec) == []


def test_a_parameter_output_that_crosses_into_a_loop_is_found_and_the_items_of_the_loop_are_none(tmp_path):
    @dsl.component(base_image="x", install_kfp_package=False)
    def count() -> int:
        return 1

    @dsl.component(base_image="x", install_kfp_package=False)
    def items() -> list:
        return []

    @dsl.component(base_image="x", install_kfp_package=False)
    def use(item: str, number: int):
        pass

    @dsl.pipeline(name="crossing")
    def crossing():
        counted = count()
        with dsl.ParallelFor(items=items().output, name="loop") as item:
            use(item=item, number=counted.output)

    compiler.Compiler().compile(crossing, str(tmp_path / "crossing.yaml"))
    assert crossing_parameters(yaml.safe_load((tmp_path / "crossing.yaml").read_text())) == [
        "loop: pipelinechannel--count-Output"
    ]


def parameter_types(component, kind):
    return {name: p["parameterType"] for name, p in component.get(kind, {}).get("parameters", {}).items()}


def type_mismatches(spec):
    """Parameters whose type is not the one that their task declares, in the words of the driver, which refuses them."""
    found = []
    for group in (spec["root"], *(c for c in spec["components"].values() if "dag" in c)):
        components = {n: spec["components"][t["componentRef"]["name"]] for n, t in group["dag"]["tasks"].items()}
        for task, component in components.items():
            expected = parameter_types(component, "inputDefinitions")
            inputs = group["dag"]["tasks"][task].get("inputs", {}).get("parameters", {})
            for name, source in inputs.items():
                if "componentInputParameter" in source:
                    got = parameter_types(group, "inputDefinitions")[source["componentInputParameter"]]
                elif "taskOutputParameter" in source:
                    output = source["taskOutputParameter"]
                    got = parameter_types(components[output["producerTask"]], "outputDefinitions")[
                        output["outputParameterKey"]
                    ]
                else:
                    continue
                if got != expected[name]:
                    found.append(f"{task}: input parameter {name!r} type mismatch: expect {expected[name]}, got {got}")
    return found


def loop_item_types(spec):
    return {
        parameter_types(spec["components"][task["componentRef"]["name"]], "inputDefinitions")[
            task["parameterIterator"]["itemInput"]
        ]
        for tasks in groups(spec)
        for task in tasks.values()
        if "parameterIterator" in task
    }


def test_every_parameter_has_the_type_that_its_task_declares(spec):
    assert type_mismatches(spec) == []


def test_the_items_of_every_loop_are_structs(spec):
    assert loop_item_types(spec) == {"STRUCT"}


def test_a_loop_over_a_list_without_a_type_is_found_to_hand_on_text(tmp_path):
    """kfp compiles it, runs it on one machine, and on a cluster the driver refuses it."""

    @dsl.component(base_image="x", install_kfp_package=False)
    def items() -> list:
        return []

    @dsl.component(base_image="x", install_kfp_package=False)
    def use(run: dict):
        pass

    @dsl.pipeline(name="untyped")
    def untyped():
        with dsl.ParallelFor(items=items().output, name="loop") as item:
            use(run=item)

    compiler.Compiler().compile(untyped, str(tmp_path / "untyped.yaml"))
    spec = yaml.safe_load((tmp_path / "untyped.yaml").read_text())
    assert type_mismatches(spec) == ["use: input parameter 'run' type mismatch: expect STRUCT, got STRING"]
    assert loop_item_types(spec) == {"STRING"}


def test_what_changes_the_registry_or_reads_what_changes_is_never_taken_from_the_cache(spec):
    """A branch, an alias, a registry, a study: the same arguments mean something else tomorrow."""
    never = {"fetch-data", "read-champion", "register-model", "promote-model", "notify-exit"}
    never |= {"tune-worker", "collect-study"}
    for tasks in groups(spec):
        for name, task in tasks.items():
            component = task["componentRef"]["name"].removeprefix("comp-")
            if f"exec-{component}" in spec["deploymentSpec"]["executors"]:
                assert task["cachingOptions"].get("enableCache", False) == (component not in never), name


def test_the_run_id_reaches_each_task_by_its_environment_and_no_input_of_it(text, spec):
    """As an input it would differ in every run, and nothing would ever be taken from the cache."""
    _, platform = yaml.safe_load_all(text)
    assert "{{$.pipeline_job" not in text
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    for executor in executors.values():
        assert executor == {
            "fieldPathAsEnv": [{"name": "RAREGRADE_GROUP", "fieldPath": "metadata.labels['pipeline/runid']"}]
        }


def test_what_a_loop_made_is_collected_only_after_it(spec):
    for tasks in groups(spec):
        loops = {name for name, task in tasks.items() if "parameterIterator" in task}
        for name, task in tasks.items():
            artifacts = task.get("inputs", {}).get("artifacts", {}).values()
            used = {a["taskOutputArtifact"]["producerTask"] for a in artifacts if "taskOutputArtifact" in a}
            assert used & loops <= set(task.get("dependentTasks", ())), name


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_task_is_given_what_the_environment_says(name, environment, tmp_path):
    """None is forgotten: not the one in the loop, not the one that runs at exit."""
    compile_pipeline(name, tmp_path / "c.yaml", load_environment(environment))
    spec, platform = yaml.safe_load_all((tmp_path / "c.yaml").read_text())
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor, content in spec["deploymentSpec"]["executors"].items():
        resources = content["container"]["resources"]
        assert {"resourceCpuLimit", "resourceMemoryLimit", "resourceCpuRequest", "resourceMemoryRequest"} <= set(
            resources
        )
        assert settings[executor]["securityContext"]["runAsNonRoot"] is True
        assert {"activeDeadlineSeconds", "pvcMount", "secretAsEnv"} <= set(settings[executor]), executor
    retried = [task for tasks in groups(spec) for task in tasks.values() if "retryPolicy" in task]
    assert len(retried) == len(spec["deploymentSpec"]["executors"])


def test_a_component_is_given_the_same_in_every_pipeline(tmp_path):
    given = {}
    for pipeline in NAMES:
        compile_pipeline(pipeline, tmp_path / "c.yaml", load_environment("prod"))
        spec = next(yaml.safe_load_all((tmp_path / "c.yaml").read_text()))
        for executor, content in spec["deploymentSpec"]["executors"].items():
            given.setdefault(executor, []).append(content["container"]["resources"])
    assert len(given["exec-register-model"]) == 3
    assert all(resources == others[0] for others in given.values() for resources in others)


def test_an_unknown_pipeline_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match=rf"unknown pipeline 'compare'; there is {', '.join(NAMES)}"):
        load_pipeline("compare")
