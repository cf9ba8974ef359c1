"""One training over several nodes, as a ``TrainJob`` of Kubeflow Trainer (trainer.kubeflow.org/v1alpha1).

The runtime ``torch-distributed`` tells torchrun of nodes, ranks and the main address; what runs is the same
``raregrade train`` as on one node. torchrun starts the processes again when one ends with an error, 75 for an
interruption among them, and each then goes on from the checkpoint in the shared folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubeflow_trainer_api import models
from pydantic import ValidationError

from raregrade.errors import UserError
from raregrade.kubeflow.environments import Environment, Toleration

API_VERSION = "trainer.kubeflow.org/v1alpha1"
_NODE = "node"  # what the runtime calls its replicated job, and the container in it
_OWNER = "raregrade"  # of the entry in runtimePatches
_GRACE_SECONDS = 120  # for the last checkpoint
_PARAMS_FOLDER = "/etc/raregrade"
PARAMS_FILE = f"{_PARAMS_FOLDER}/params.yaml"


def train_job(
    environment: Environment,
    *,
    image: str,
    nodes: int,
    name: str = "train",
    arguments: Sequence[str] = (),
    config_map: str | None = None,
) -> dict[str, Any]:
    """A TrainJob for ``raregrade`` with ``arguments`` on ``nodes`` nodes, each with what ``tasks.train`` says.

    Args:
        environment: what the nodes get, and the volumes that they share.
        image: of the nodes.
        nodes: how many.
        name: of the job.
        arguments: of ``raregrade``; a task of a pipeline adds its own later.
        config_map: one that holds ``params.yaml``, mounted at ``PARAMS_FILE``; None mounts none.

    Raises:
        UserError: what comes out is no TrainJob, as its published models have it.
    """
    train = environment.task("train")
    distributed = environment.distributed
    spec: dict[str, Any] = {
        "runtimeRef": {"name": distributed.runtime},
        "activeDeadlineSeconds": train.timeout_seconds,
        "trainer": {
            "image": image,
            "numNodes": nodes,
            "numProcPerNode": distributed.processes_per_node or max(1, train.accelerators),
            "command": ["torchrun", f"--max-restarts={distributed.restarts}", "-m", "raregrade"],
            "args": list(arguments),
            "env": _variables(environment),
            "resourcesPerNode": _resources(environment),
        },
        "runtimePatches": [{"manager": _OWNER, "trainingRuntimeSpec": _runtime(_pod(environment, config_map))}],
    }
    metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/part-of": "raregrade"}}
    if environment.namespace:
        metadata["namespace"] = environment.namespace
    return checked({"apiVersion": API_VERSION, "kind": "TrainJob", "metadata": metadata, "spec": spec})


def params_config_map(environment: Environment, name: str, params: str) -> dict[str, Any]:
    """A ConfigMap that holds ``params``, the text of a params.yaml."""
    metadata = {"name": name} | ({"namespace": environment.namespace} if environment.namespace else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"params.yaml": params}}


def checked(job: dict[str, Any]) -> dict[str, Any]:
    """``job``, where the models that Kubeflow Trainer publishes read it and lose nothing. Raises UserError else."""
    try:
        model = models.TrainerV1alpha1TrainJob.from_dict(job)
    except ValidationError as err:
        raise UserError(f"this is no TrainJob: {err}") from err
    if model is None or model.to_dict() != job:
        raise UserError("this is no TrainJob: it has fields that Kubeflow Trainer does not know")
    return job


def _variables(environment: Environment) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": value} for name, value in environment.variables.items()]
    secret = [
        {
            "name": variable,
            "valueFrom": {
                "secretKeyRef": {"name": secret.name, "key": key} | ({"optional": True} if secret.optional else {})
            },
        }
        for secret in environment.secrets
        for key, variable in secret.env.items()
    ]
    return [*plain, *secret]


def _resources(environment: Environment) -> dict[str, dict[str, str]]:
    train = environment.task("train")
    accelerators = {environment.accelerator.type: str(train.accelerators)} if train.accelerators else {}
    return {
        "requests": {"cpu": train.cpu, "memory": train.memory} | accelerators,
        "limits": {"cpu": train.cpu_limit or train.cpu, "memory": train.memory_limit or train.memory} | accelerators,
    }


def _runtime(pod: dict[str, Any]) -> dict[str, Any]:
    """The patch of the runtime that changes its pods."""
    job = {"name": _NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _pod(environment: Environment, config_map: str | None) -> dict[str, Any]:
    train = environment.task("train")
    on_accelerator = train.accelerators > 0
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for number, volume in enumerate(environment.volumes):
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": volume.claim}})
        mounts.append({"name": f"volume-{number}", "mountPath": volume.path})
    if train.shm:
        volumes.append({"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": train.shm}})
        mounts.append({"name": "dshm", "mountPath": "/dev/shm"})  # noqa: S108 - of the pod, not of this machine
    if config_map:
        volumes.append({"name": "params", "configMap": {"name": config_map}})
        mounts.append({"name": "params", "mountPath": _PARAMS_FOLDER, "readOnly": True})
    labels = environment.node_selector | (environment.accelerator.node_selector if on_accelerator else {})
    tolerations = [*environment.tolerations, *(environment.accelerator.tolerations if on_accelerator else ())]
    user = {"runAsUser": environment.run_as_user} if environment.run_as_user else {}
    pod: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} | user,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "volumes": volumes,
        "containers": [
            {
                "name": _NODE,
                "volumeMounts": mounts,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "serviceAccountName": environment.service_account,
        "imagePullSecrets": [{"name": name} for name in environment.image_pull_secrets],
        "nodeSelector": labels,
        "tolerations": [_toleration(toleration) for toleration in tolerations],
    }
    return {key: value for key, value in pod.items() if value}


def _toleration(toleration: Toleration) -> dict[str, str]:
    return toleration.model_dump(exclude_none=True)
