"""A TrainJob: what the environment puts into it, what the command writes, and when pipelines start one."""

import subprocess
import sys

import pytest
import yaml

from raregrade.cli.main import run
from raregrade.config import load_params
from raregrade.errors import UserError
from raregrade.kubeflow.compile import NAMES, compile_pipeline
from raregrade.kubeflow.environments import Environment, load_environment
from raregrade.kubeflow.trainjob import PARAMS_FILE, checked, train_job
from tests.kubeflow.test_resources import FULL
from tests.kubernetes_server import problem_of

PLACES = ["--data", "/mnt/data/prepared", "--out", "/mnt/checkpoints/models/ce/1"]


@pytest.fixture(scope="module")
def environment():
    return Environment.model_validate({**FULL, "distributed": {"nodes": 3, "restarts": 7}})


@pytest.fixture(scope="module")
def job(environment):
    return train_job(environment, image="r.example/x:1", nodes=3, arguments=["train"], config_map="params")


@pytest.fixture
def pod(job):
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    return replicated["template"]["spec"]["template"]["spec"]


def test_a_cluster_takes_it(job):
    assert problem_of(job) == ""


def test_torchrun_starts_the_command_on_each_node_and_again_after_an_error(job):
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun", "--max-restarts=7", "-m", "raregrade"]
    assert (trainer["args"], trainer["numNodes"], trainer["numProcPerNode"]) == (["train"], 3, 2)
    assert job["spec"]["runtimeRef"] == {"name": "torch-distributed"}
    assert job["spec"]["activeDeadlineSeconds"] == 7200


def test_each_node_gets_what_a_training_task_gets(job):
    assert job["spec"]["trainer"]["resourcesPerNode"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        "limits": {"cpu": "8", "memory": "24Gi", "nvidia.com/gpu": "2"},
    }


def test_secrets_are_named_and_never_spelled_out(job):
    variables = {v["name"]: v for v in job["spec"]["trainer"]["env"]}
    assert variables["PGHOST"]["value"] == "postgres.team"
    assert variables["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"]["value"] == "false"
    assert variables["MLFLOW_TRACKING_PASSWORD"]["valueFrom"] == {"secretKeyRef": {"name": "mlflow", "key": "password"}}
    assert variables["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["optional"] is True


def test_the_pods_mount_the_volumes_and_shared_memory(pod):
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert {volumes[name].get("persistentVolumeClaim", {}).get("claimName"): path for name, path in mounts.items()} == {
        "data": "/mnt/data",
        "kept": "/mnt/kept",
        None: "/etc/raregrade",
    }
    assert volumes["dshm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert mounts["dshm"] == "/dev/shm"
    assert f"{mounts['params']}/params.yaml" == PARAMS_FILE


def test_the_pods_are_not_root_and_go_where_the_accelerators_are(pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["nodeSelector"] == {"pool": "batch", "accelerator": "h100"}
    assert [t["key"] for t in pod["tolerations"]] == ["team", "nvidia.com/gpu"]
    assert pod["serviceAccountName"] == "runner"
    assert pod["imagePullSecrets"] == [{"name": "registry-login"}]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_every_environment_of_the_repository_makes_one(name):
    assert problem_of(train_job(load_environment(name), image="r.example/x:1", nodes=2)) == ""


def test_a_field_that_kubeflow_trainer_does_not_know_is_found(job):
    with pytest.raises(UserError, match="fields that Kubeflow Trainer does not know"):
        checked({**job, "spec": {**job["spec"], "restartPolicy": "Always"}})
    with pytest.raises(UserError, match="no TrainJob"):
        checked({**job, "spec": {**job["spec"], "trainer": {"numNodes": "two"}}})


def test_the_command_writes_parameters_and_job_for_kubectl(workplace, capsys):
    arguments = [
        "--env",
        "prod",
        "--loss",
        "cdw_ce",
        "--nodes",
        "2",
        "--image",
        "r.example/x:1",
        "--fold",
        "1",
        *PLACES,
    ]
    assert run(["pipeline", "trainjob", *arguments, "-o", "job.yaml", "--set", "train.epochs=9"]) == 0
    config, job = yaml.safe_load_all((workplace / "job.yaml").read_text())
    name = job["metadata"]["name"]
    assert name.startswith("train-cdw-ce-1-")
    assert len(name) <= 40
    assert config["metadata"] == {"name": name, "namespace": "raregrade-prod"}
    assert problem_of(job) == ""
    sent = " ".join(job["spec"]["trainer"]["args"])
    assert sent == (
        "train --data /mnt/data/prepared --loss cdw_ce --seed 1 --out /mnt/checkpoints/models/ce/1 "
        f"--params {PARAMS_FILE} --fold 1 --checkpoints /mnt/checkpoints"
    )
    (workplace / "read.yaml").write_text(config["data"]["params.yaml"])
    read = load_params(workplace / "read.yaml")
    assert (read.train.epochs, read.tracking.uri) == (9, "http://mlflow.raregrade:5000")
    assert "`kubectl apply -f job.yaml`, then\n`kubectl -n raregrade-prod logs -f -l jobset" in capsys.readouterr().out


def test_what_it_writes_is_valid_for_kubernetes(workplace, tmp_path):
    run(["pipeline", "trainjob", "--env", "dev", "--loss", "ce", "--image", "r.example/x:1", *PLACES, "-o", "job.yaml"])
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", "1.31", "job.yaml"]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_training_has_the_same_name_and_another_has_another(workplace, capsys):
    def name(*more):
        command = ["pipeline", "trainjob", "--env", "prod", "--loss", "ce", "--image", "r.example/x:1", *PLACES, *more]
        assert run(command) == 0
        return list(yaml.safe_load_all(capsys.readouterr().out))[1]["metadata"]["name"]

    assert name() == name()
    assert len({name(), name("--set", "train.epochs=9"), name("--seed", "2")}) == 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--loss", "lmf", *PLACES], "loss 'lmf' is not defined under losses"),
        (
            ["--loss", "ce", "--data", "data", "--out", "/mnt/data/m"],
            "--data data is on none of the environment's volumes",
        ),
        (["--loss", "ce", "--data", "/mnt/data/p", "--out", "/tmp/m"], "--out /tmp/m is on none"),
        (["--loss", "ce", *PLACES, "--image", "r.example/x:latest"], "another image tomorrow"),
    ],
)
def test_what_cannot_work_is_refused(workplace, capsys, arguments, problem):
    image = [] if "--image" in arguments else ["--image", "r.example/x:1"]
    assert run(["pipeline", "trainjob", "--env", "prod", *arguments, *image, "-o", "job.yaml"]) == 2
    assert problem in capsys.readouterr().err
    assert not (workplace / "job.yaml").exists()


@pytest.mark.parametrize("name", NAMES)
def test_pipelines_train_over_several_nodes_where_the_environment_says_so(tmp_path, environment, name):
    compile_pipeline(name, tmp_path / "c.yaml", environment)
    spec, platform = yaml.safe_load_all((tmp_path / "c.yaml").read_text())
    executors = spec["deploymentSpec"]["executors"]
    assert "exec-train-distributed" in executors
    assert "exec-train-model" not in executors
    groups = [c["dag"]["tasks"] for c in (spec["root"], *spec["components"].values()) if "dag" in c]
    tasks = [t for tasks in groups for t in tasks.values() if t["componentRef"]["name"] == "comp-train-distributed"]
    for task in tasks:
        given = {
            k: v["runtimeValue"]["constant"] for k, v in task["inputs"]["parameters"].items() if "runtimeValue" in v
        }
        assert problem_of(yaml.safe_load(given["job"])) == ""
        assert given["shared"] == "/mnt/kept/checkpoints"
        assert task["retryPolicy"]["maxRetryCount"] == 4
    waiting = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-distributed"]
    assert waiting["activeDeadlineSeconds"] == "7200"
    assert "accelerator" not in executors["exec-train-distributed"]["container"]["resources"]
