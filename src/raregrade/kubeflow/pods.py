"""The pods of a run, asked of the cluster itself: what Kubeflow's API does not say of its tasks.

It has no logs, and shows a task whose image cannot be pulled as one that runs. Needs whatever `kubectl` uses on this
machine, or inside a cluster the pod's own account; without either nothing is known, and nothing fails.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import kubernetes
import urllib3

from raregrade.kubeflow.host import Host

_TIMEOUT = (5.0, 30.0)  # seconds to connect, to answer
_RUN_LABEL = "pipeline/runid"
_NODE_ANNOTATION = "workflows.argoproj.io/node-name"
_MAIN = "main"
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_FAILURES = (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class Pod:
    """The pod of a task: whose it is, the phase it is in, and why its image cannot be had, where that is so."""

    name: str
    task: str
    phase: str
    image_problem: str


def open_cluster() -> Any:
    """The cluster's API; None where this machine has no account on one."""
    configuration = kubernetes.client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes.config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
    except (kubernetes.config.ConfigException, OSError):
        return None
    configuration.retries = False
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


def pods_of(cluster: Any, run_id: str, namespace: str) -> list[Pod]:
    """The pods of the tasks of run ``run_id``, oldest first; none where they may not be looked at."""
    if cluster is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = cluster.list_namespaced_pod(
                namespace, label_selector=f"{_RUN_LABEL}={run_id}", _request_timeout=_TIMEOUT
            )
    except _FAILURES:
        return []
    pods = [(pod.metadata.creation_timestamp, _pod(pod)) for pod in answer.items]
    return [pod for _, pod in sorted(pods, key=lambda pair: (pair[0] is None, pair[0])) if pod.task]


def image_problem(host: Host, run_id: str) -> str | None:
    """Which task of run ``run_id`` cannot get its image, and why; None where all have theirs, or nobody may look."""
    pods = pods_of(open_cluster(), run_id, host.namespace or "kubeflow")
    return next((f"{pod.task}: {pod.image_problem}" for pod in pods if pod.image_problem), None)


def read_log(cluster: Any, pod: str, namespace: str) -> str | None:
    """What the task in ``pod`` has written so far; None where that cannot be had."""
    try:
        answer = cluster.read_namespaced_pod_log(
            pod, namespace, container=_MAIN, _preload_content=False, _request_timeout=_TIMEOUT
        )
    except _FAILURES:
        return None
    return bytes(answer.data).decode("utf-8", "replace")


def _pod(pod: Any) -> Pod:
    problem = ""
    for status in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason in _NO_IMAGE:
            problem = f"{waiting.reason} for {status.image}{f' ({waiting.message})' if waiting.message else ''}"
            break
    node = (pod.metadata.annotations or {}).get(_NODE_ANNOTATION, "")
    return Pod(pod.metadata.name, _task_name(node), pod.status.phase or "", problem)


def _task_name(node: str) -> str:
    """``train-model`` of ``run-x.root.for-loop-1.iteration-0.train-model.executor(1)``; empty for Kubeflow's own."""
    parts = node.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1].startswith("executor") else ""
