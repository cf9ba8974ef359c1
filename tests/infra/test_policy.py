"""Each check of the manifests finds what it is there to find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.infra.manifests import Document
from tests.infra.policy import (
    clear_secrets,
    compose_problems,
    dockerfile_problems,
    image_problems,
    rights_problems,
    workload_problems,
)

GOOD: Document = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "template": {
            "spec": {
                "serviceAccountName": "web",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "web",
                        "image": "registry.example.com:5000/web:1.2.3",
                        "args": ["--store=postgresql:///db", "--token=$(TOKEN)"],
                        "env": [
                            {"name": "HOME", "value": "/tmp"},
                            {"name": "RCLONE_AUTH_KEY", "value": '"$(ID),$(KEY)"'},
                            {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                        ],
                        "readinessProbe": {"tcpSocket": {"port": 80}},
                        "resources": {
                            "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
                            "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
            }
        }
    },
}
Edit = Callable[[Document, Document], Any]  # of a pod and its first container


def edited(edit: Edit) -> Document:
    document = copy.deepcopy(GOOD)
    pod = document["spec"]["template"]["spec"]
    edit(pod, pod["containers"][0])
    return document


def test_a_pod_without_fault_has_no_problem() -> None:
    assert workload_problems([GOOD]) + clear_secrets([GOOD]) == []


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda pod, c: c.update(image="web:latest"), "latest"),
        (lambda pod, c: c.update(image="web:latest-full"), "latest"),
        (lambda pod, c: c.update(image="registry.example.com:5000/web"), "no tag"),
        (lambda pod, c: c["securityContext"].update(privileged=True), "privileged"),
        (lambda pod, c: c["securityContext"].pop("allowPrivilegeEscalation"), "may gain privileges"),
        (lambda pod, c: c["securityContext"].update(readOnlyRootFilesystem=False), "writable root"),
        (lambda pod, c: c["securityContext"].pop("capabilities"), "keeps capabilities"),
        (lambda pod, c: c["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "keeps capabilities"),
        (lambda pod, c: c["securityContext"].update(runAsNonRoot=False), "no runAsNonRoot"),
        (lambda pod, c: pod["securityContext"].pop("runAsNonRoot"), "no runAsNonRoot"),
        (lambda pod, c: pod["securityContext"].update(runAsUser=0), "root's"),
        (lambda pod, c: pod["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda pod, c: c["resources"].pop("limits"), "no limits of memory"),
        (lambda pod, c: c["resources"]["limits"].pop("cpu"), "no limits of cpu"),
        (lambda pod, c: c["resources"]["requests"].pop("memory"), "no requests of memory"),
        (lambda pod, c: c.pop("readinessProbe"), "no readinessProbe"),
        (lambda pod, c: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod, c: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda pod, c: pod["volumes"].append({"name": "x", "emptyDir": {}}), "no sizeLimit"),
        (lambda pod, c: pod.pop("automountServiceAccountToken"), "mounts the token"),
        (lambda pod, c: pod.pop("serviceAccountName"), "account `default`"),
        (lambda pod, c: pod.update(initContainers=[{"name": "first", "image": "a:1"}]), "first: no limits of cpu"),
    ],
)
def test_a_pod_that_is_not_locked_down_is_found(edit: Edit, problem: str) -> None:
    assert any(problem in found for found in workload_problems([edited(edit)]))


@pytest.mark.parametrize(
    "edit",
    [
        lambda pod, c: c["env"].append({"name": "PGPASSWORD", "value": "hunter2"}),
        lambda pod, c: c["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}),
        lambda pod, c: c["env"].append({"name": "RCLONE_AUTH_KEY", "value": '"me,$(KEY)"'}),
        lambda pod, c: c["args"].append("--store=postgresql://mlflow:hunter2@postgres/mlflow"),
        lambda pod, c: c["args"].append("--password=hunter2"),
    ],
)
def test_a_secret_in_a_pod_is_found(edit: Edit) -> None:
    assert clear_secrets([edited(edit)])


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "x"}},
        {"kind": "Secret", "metadata": {"name": "s"}, "data": {"password": "eA=="}},
        {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"auth.ini": "[mlflow]\nadmin_password = hunter2"}},
        {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"url": "postgresql://a:b@host/db"}},
        {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"API_TOKEN": "abc"}},
    ],
)
def test_a_secret_in_a_document_is_found(document: Document) -> None:
    assert clear_secrets([document])


@pytest.mark.parametrize(
    ("kind", "rule", "problem"),
    [
        ("Role", {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}, "a rule with *"),
        ("Role", {"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}, "a rule with *"),
        ("Role", {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, "secrets that it does not name"),
        (
            "Role",
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["list"]},
            "secrets that it does not name",
        ),
        ("Role", {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}, "a way into other pods"),
        ("ClusterRole", {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, "the whole cluster"),
    ],
)
def test_rights_that_are_too_wide_are_found(kind: str, rule: Document, problem: str) -> None:
    assert any(
        problem in found for found in rights_problems([{"kind": kind, "metadata": {"name": "r"}, "rules": [rule]}])
    )


SERVICE: Document = {
    "image": "web:1.0",
    "user": "10001:10001",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "environment": {"PGPASSWORD": "${DB_PASSWORD:?run make-env.sh}", "PGHOST": "postgres"},
    "ports": ["127.0.0.1:${PORT:-5000}:5000"],
    "deploy": {"resources": {"limits": {"cpus": "1", "memory": "1g"}}},
}


def test_a_compose_service_without_fault_has_no_problem() -> None:
    assert compose_problems({"services": {"web": SERVICE}}) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": "web"}, "no tag"),
        ({"user": "root"}, "runs as root"),
        ({"privileged": True}, "privileged"),
        ({"read_only": False}, "writable root"),
        ({"cap_drop": []}, "keeps capabilities"),
        ({"cap_add": ["CHOWN"]}, "keeps capabilities"),
        ({"security_opt": []}, "may gain privileges"),
        ({"ports": ["5000:5000"]}, "open to other machines"),
        ({"deploy": {"resources": {"limits": {"cpus": "1"}}}}, "no limit of memory"),
        ({"environment": {"PGPASSWORD": "hunter2"}}, "in clear text"),
        ({"command": ["--store=postgresql://a:b@host/db"]}, "a URL with a password"),
        ({"user": "0", "restart": "no"}, "runs as root"),
    ],
)
def test_a_compose_service_that_is_not_locked_down_is_found(change: Document, problem: str) -> None:
    assert any(problem in found for found in compose_problems({"services": {"web": SERVICE | change}}))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("FROM python:latest\nUSER 1000", "latest"),
        ("FROM python\nUSER 1000", "no tag"),
        ("FROM python:3.11-slim", "root"),
        ("FROM python:3.11-slim AS build\nUSER 1000\nFROM build\nUSER root", "root"),
        ("FROM python:3.11-slim\nENV API_TOKEN=abc\nUSER 1000", "clear text"),
        ("FROM python:3.11-slim\nARG INDEX=https://me:secret@host/simple\nUSER 1000", "a URL with a password"),
    ],
)
def test_a_dockerfile_with_a_fault_is_found(text: str, problem: str) -> None:
    assert any(problem in found for found in dockerfile_problems(text))


def test_a_dockerfile_without_fault_has_no_problem() -> None:
    assert (
        dockerfile_problems("FROM python:3.11-slim AS a\nARG INDEX=\nFROM a\nENV HOME=/tmp\nUSER 10001:10001\n") == []
    )


def test_an_image_is_named_by_a_tag_or_a_digest() -> None:
    assert image_problems("x", "registry.example.com:5000/a/b:1.0") == []
    assert image_problems("x", f"a/b@sha256:{'0' * 64}") == []
    assert image_problems("x", "registry.example.com:5000/a/b")
