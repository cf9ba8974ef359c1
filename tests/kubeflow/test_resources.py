"""What an environment says is what the compiled YAML asks of a cluster, choice by choice."""

import pytest
import yaml

from raregrade.kubeflow.compile import compile_pipeline
from raregrade.kubeflow.environments import Environment

FULL = {
    "host": "https://kubeflow.example.org",
    "namespace": "team",
    "image": "registry.example/raregrade:1",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry-login"],
    "service_account": "runner",
    "env": {"PGHOST": "postgres.team"},
    "secrets": [
        {"name": "mlflow", "env": {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}},
        {"name": "s3", "env": {"id": "AWS_ACCESS_KEY_ID"}, "optional": True},
    ],
    "volumes": [{"claim": "data", "path": "/mnt/data"}, {"claim": "kept", "path": "/mnt/kept"}],
    "store": "/mnt/data/store",
    "checkpoints": "/mnt/kept/checkpoints",
    "run_as_user": 10001,
    "accelerator": {
        "type": "nvidia.com/gpu",
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "node_selector": {"accelerator": "h100"},
    },
    "tolerations": [{"key": "team", "value": "imaging"}],
    "node_selector": {"pool": "batch"},
    "backoff": {"seconds": 30, "factor": 3.0, "max_seconds": 900},
    "tasks": {
        "train": {
            "cpu": "4",
            "cpu_limit": "8",
            "memory": "16Gi",
            "memory_limit": "24Gi",
            "accelerators": 2,
            "shm": "8Gi",
            "timeout_seconds": 7200,
            "retries": 4,
        },
        "light": {"cpu": "500m", "memory": "1Gi", "timeout_seconds": 600, "retries": 0},
    },
}


def compiled(folder, **changes):
    path = folder / "c.yaml"
    compile_pipeline("compare_losses", path, Environment.model_validate({**FULL, **changes}))
    spec, platform = yaml.safe_load_all(path.read_text())
    containers = {name: e["container"] for name, e in spec["deploymentSpec"]["executors"].items()}
    return spec, containers, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def spec(files):
    return files[0]


@pytest.fixture
def train(files):
    """The training task: its container, and its settings for Kubernetes."""
    return files[1]["exec-train-model"], files[2]["exec-train-model"]


@pytest.fixture
def light(files):
    return files[1]["exec-compare-models"], files[2]["exec-compare-models"]


def retry_of(spec, task):
    groups = [c["dag"]["tasks"] for c in (spec["root"], *spec["components"].values()) if "dag" in c]
    (found,) = [tasks[task] for tasks in groups if task in tasks]
    return found.get("retryPolicy")


def test_cpu_and_memory_are_requested_and_limited(train, light):
    resources = train[0]["resources"]
    assert {key: value for key, value in resources.items() if key.startswith(("resourceC", "resourceM"))} == {
        "resourceCpuRequest": "4",
        "resourceCpuLimit": "8",
        "resourceMemoryRequest": "16Gi",
        "resourceMemoryLimit": "24Gi",
    }
    assert light[0]["resources"]["resourceCpuLimit"] == light[0]["resources"]["resourceCpuRequest"] == "500m"
    assert light[0]["resources"]["resourceMemoryLimit"] == light[0]["resources"]["resourceMemoryRequest"] == "1Gi"


def test_accelerators_have_a_type_and_a_number_where_they_are_asked_for(train, light):
    accelerator = train[0]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert "accelerator" not in light[0]["resources"]


def test_shared_memory_is_a_volume_in_memory_with_a_size(train, light):
    assert train[1]["emptyDirMounts"] == [
        {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi"}
    ]
    assert "emptyDirMounts" not in light[1]


def test_only_tasks_with_accelerators_tolerate_their_taint_and_go_to_their_nodes(train, light):
    team = {"key": "team", "operator": "Equal", "value": "imaging"}
    assert light[1]["tolerations"] == [team]
    assert train[1]["tolerations"] == [team, {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert light[1]["nodeSelector"]["labels"] == {"pool": "batch"}
    assert train[1]["nodeSelector"]["labels"] == {"pool": "batch", "accelerator": "h100"}


def test_secrets_are_named_and_never_spelled_out(train):
    found = {
        s["secretName"]: ({k["secretKey"]: k["envVar"] for k in s["keyToEnv"]}, s.get("optional", False))
        for s in train[1]["secretAsEnv"]
    }
    assert found == {
        "mlflow": ({"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}, False),
        "s3": ({"id": "AWS_ACCESS_KEY_ID"}, True),
    }


def test_volumes_are_mounted(train):
    assert [(m["constant"], m["mountPath"]) for m in train[1]["pvcMount"]] == [
        ("data", "/mnt/data"),
        ("kept", "/mnt/kept"),
    ]


def test_plain_variables_reach_every_task_and_the_folder_of_checkpoints_those_that_train(train, light):
    assert {"name": "PGHOST", "value": "postgres.team"} in light[0]["env"]
    checkpoints = {"name": "RAREGRADE_CHECKPOINTS", "value": "/mnt/kept/checkpoints"}
    assert checkpoints in train[0]["env"]
    assert checkpoints not in light[0]["env"]


MULTIPART = ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD")


def test_every_task_fetches_and_sends_files_through_mlflow(files):
    for container in files[1].values():
        assert all({"name": name, "value": "false"} in container["env"] for name in MULTIPART)


def test_an_environment_may_let_clients_fetch_files_from_the_store(tmp_path):
    _, containers, _ = compiled(tmp_path, env={MULTIPART[0]: "true"})
    for container in containers.values():
        values = {v["name"]: v["value"] for v in container["env"]}
        assert [values[name] for name in MULTIPART] == ["true", "false"]


def test_a_task_that_hangs_is_ended(train, light):
    assert train[1]["activeDeadlineSeconds"] == "7200"
    assert light[1]["activeDeadlineSeconds"] == "600"


def test_a_task_that_fails_is_tried_again_after_growing_pauses(spec):
    assert retry_of(spec, "train-model") == {
        "maxRetryCount": 4,
        "backoffDuration": "30s",
        "backoffFactor": 3.0,
        "backoffMaxDuration": "900s",
    }
    assert retry_of(spec, "compare-models") is None


def test_no_task_is_root(files):
    assert {tuple(sorted(s["securityContext"].items())) for s in files[2].values()} == {
        (("runAsNonRoot", True), ("runAsUser", "10001"))
    }


def test_the_image_is_pulled_as_asked_with_the_login_it_needs(train):
    assert train[1]["imagePullPolicy"] == "Always"
    assert [s["secretName"] for s in train[1]["imagePullSecret"]] == ["registry-login"]


def test_kinds_that_the_file_leaves_out_get_limits_all_the_same(files):
    resources = files[1]["exec-prepare-dataset"]["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("1", "2Gi")


def test_what_is_not_set_is_not_sent(tmp_path):
    plain = {key: FULL[key] for key in ("host", "image")}
    compile_pipeline("compare_losses", tmp_path / "c.yaml", Environment.model_validate(plain))
    _, platform = yaml.safe_load_all((tmp_path / "c.yaml").read_text())
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-model"]
    assert set(settings) == {"fieldPathAsEnv", "securityContext", "activeDeadlineSeconds"}
