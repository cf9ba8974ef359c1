"""What no manifest of ours may do, found in parsed YAML. Each function returns sentences; none means all is well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.infra.manifests import Document

_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|PRIVATE|(ACCESS|API|AUTH)_KEY", re.IGNORECASE)
# A path or a setting may carry such a name without being a secret.
_NOT_SECRET = {"MLFLOW_AUTH_CONFIG_PATH", "POSTGRES_INITDB_ARGS"}
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@$]+@")
_REFERENCE = re.compile(r"\$\([A-Z0-9_]+\)|\$\{[A-Z0-9_]+(:[?-][^}]*)?\}")


def title(document: Document) -> str:
    """``Kind/name``."""
    return f"{document['kind']}/{document['metadata']['name']}"


def pod_specs(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Every pod template with the title of what it belongs to."""
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield title(document), document["spec"]["template"]["spec"]
        elif document["kind"] == "CronJob":
            yield title(document), document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield title(document), document["spec"]


def containers(pod: Document) -> list[Document]:
    """All containers of a pod, those that run before the others included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def image_problems(name: str, image: str) -> list[str]:
    """An image is named by a tag that stays, or by its digest."""
    if "@sha256:" in image:
        return []
    tag = image.rpartition("/")[2].partition(":")[2]
    if not tag:
        return [f"{name}: the image {image} has no tag"]
    return [f"{name}: the image {image} is tagged latest"] if tag.split("-")[0] == "latest" else []


def workload_problems(documents: Sequence[Document]) -> list[str]:
    """Privileges, limits and images of all pods."""
    problems = []
    for owner, pod in pod_specs(documents):
        problems += _pod_problems(owner, pod)
        for container in containers(pod):
            name = f"{owner} {container['name']}"
            problems += image_problems(name, container["image"])
            problems += _container_problems(name, container, pod.get("securityContext", {}))
        problems += [
            f"{owner} {container['name']}: no readinessProbe"
            for container in pod["containers"]
            if "readinessProbe" not in container and not owner.startswith(("Job/", "CronJob/"))
        ]
    return problems


def _pod_problems(owner: str, pod: Document) -> list[str]:
    problems = [f"{owner}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    problems += [f"{owner}: a hostPath volume" for volume in pod.get("volumes", []) if "hostPath" in volume]
    problems += [
        f"{owner}: the volume {volume['name']} may fill the node: no sizeLimit"
        for volume in pod.get("volumes", [])
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {})
    ]
    if pod.get("automountServiceAccountToken") is not False:
        problems.append(f"{owner}: mounts the token of its account")
    if pod.get("serviceAccountName", "default") == "default":
        problems.append(f"{owner}: runs as the account `default`")
    return problems


def _container_problems(name: str, container: Document, of_pod: Document) -> list[str]:
    own = container.get("securityContext", {})
    security = of_pod | own
    wrong = {
        "privileged": bool(own.get("privileged")),
        "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
        "keeps capabilities": own.get("capabilities", {}).get("drop") != ["ALL"] or "add" in own["capabilities"],
        "writable root file system": own.get("readOnlyRootFilesystem") is not True,
        "no runAsNonRoot": security.get("runAsNonRoot") is not True,
        "no user id, or root's": not security.get("runAsUser"),
        "seccomp is not RuntimeDefault": security.get("seccompProfile", {}).get("type") != "RuntimeDefault",
    }
    resources = container.get("resources", {})
    for part in ("requests", "limits"):
        for what in ("cpu", "memory", "ephemeral-storage"):
            wrong[f"no {part} of {what}"] = what not in resources.get(part, {})
    return [f"{name}: {what}" for what, is_so in wrong.items() if is_so]


def clear_secrets(documents: Sequence[Document]) -> list[str]:
    """Secrets whose content is in the YAML: as Secret objects, as variables, as settings, or within a URL."""
    problems = [
        f"{title(document)}: a Secret with its content"
        for document in documents
        if document["kind"] == "Secret" and (document.get("data") or document.get("stringData"))
    ]
    for document in documents:
        if document["kind"] == "ConfigMap":
            problems += _clear(title(document), document.get("data", {}))
    for owner, pod in pod_specs(documents):
        for container in containers(pod):
            variables = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
            problems += _clear(f"{owner} {container['name']}", variables)
            problems += _clear(f"{owner} {container['name']}", dict(enumerate(words(container))))
    return problems


def words(container: Document) -> list[str]:
    """The whole command line of a container of either kind of file."""
    return [
        str(word)
        for key in ("entrypoint", "command", "args")
        for word in ([container[key]] if isinstance(container.get(key), str) else container.get(key) or [])
    ]


def _clear(name: str, values: dict[Any, Any]) -> list[str]:
    problems = []
    for key, value in values.items():
        text = str(value)
        left = _REFERENCE.sub("", text).strip("\"', ")
        if isinstance(key, str) and _SECRET_NAME.search(key) and key not in _NOT_SECRET and left not in ("", "false"):
            problems.append(f"{name}: {key} in clear text")
        if _URL_WITH_PASSWORD.search(text):
            problems.append(f"{name}: a URL with a password in {key}")
        for line in text.splitlines():
            setting, found, content = line.partition("=")
            if found and re.search(r"password|secret", setting, re.IGNORECASE) and re.search(r"\w", content):
                bare = _REFERENCE.sub("", content)
                if re.search(r"\w", bare) and not setting.lstrip().startswith(("#", ";")):
                    problems.append(f"{name}: {setting.strip()} in clear text, in {key}")
    return problems


def rights_problems(documents: Sequence[Document]) -> list[str]:
    """Rights wider than one namespace, than named verbs, or than named secrets."""
    problems = []
    for document in documents:
        if document["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            problems.append(f"{title(document)}: rights over the whole cluster")
        for rule in document.get("rules", []) if document["kind"] in ("Role", "ClusterRole") else []:
            if any("*" in rule.get(key, []) for key in ("verbs", "resources", "apiGroups")):
                problems.append(f"{title(document)}: a rule with *")
            if "secrets" in rule["resources"] and (
                not rule.get("resourceNames") or set(rule["verbs"]) - {"get", "update", "patch"}
            ):
                problems.append(f"{title(document)}: secrets that it does not name")
            if {"pods/exec", "pods/attach", "serviceaccounts/token"} & set(rule["resources"]):
                problems.append(f"{title(document)}: a way into other pods")
    return problems


def compose_problems(compose: Document) -> list[str]:
    """What ``workload_problems`` and ``clear_secrets`` look for, in a compose file as it is written."""
    problems = []
    for name, service in compose["services"].items():
        problems += image_problems(name, service["image"])
        # Only something that has no network and ends may start as root.
        harmless = service.get("network_mode") == "none" and service.get("restart") == "no"
        wrong = {
            "privileged": bool(service.get("privileged")),
            "keeps capabilities": service.get("cap_drop") != ["ALL"]
            or (bool(service.get("cap_add")) and not (harmless and service["cap_add"] == ["CHOWN"])),
            "may gain privileges": "no-new-privileges:true" not in service.get("security_opt", []),
            "writable root file system": service.get("read_only") is not True,
            "runs as root": str(service.get("user", "0")).split(":")[0] in ("0", "root") and not harmless,
        }
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        wrong |= {f"no limit of {what}": what not in limits for what in ("cpus", "memory")}
        wrong["open to other machines"] = any(
            not str(port).startswith("127.0.0.1:") for port in service.get("ports", [])
        )
        problems += [f"{name}: {what}" for what, is_so in wrong.items() if is_so]
        problems += _clear(name, service.get("environment", {}))
        problems += _clear(name, dict(enumerate(words(service))))
    return problems


def dockerfile_problems(text: str) -> list[str]:
    """Moving base images, a last stage that runs as root, and secrets among its variables."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    instructions = [line.split(None, 1) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    problems, stages, user = [], set(), "root"
    for keyword, *rest in instructions:
        argument = rest[0] if rest else ""
        if keyword.upper() == "FROM":
            user = "root"
            image, *alias = re.sub(r"--\S+\s+", "", argument).split()
            if image not in stages and "$" not in image and image != "scratch":
                problems += image_problems("FROM", image)
            stages |= {alias[-1]} if alias else set()
        elif keyword.upper() == "USER":
            user = argument.split(":")[0]
        elif keyword.upper() in ("ENV", "ARG"):
            pairs = dict(word.split("=", 1) for word in argument.split() if "=" in word)
            problems += _clear(keyword, pairs)
    if user in ("root", "0"):
        problems.append("the last stage runs as root")
    return problems
