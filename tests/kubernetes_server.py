"""A server on a real socket that speaks as a Kubernetes API does, as far as pods and TrainJobs go.

TrainJobs are read into the models of ``kubeflow_trainer_api``: a field that they do not know is refused, as a cluster
refuses it. Import it with the repository root on ``sys.path``: ``from tests.kubernetes_server import …``.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api import models
from pydantic import ValidationError

TOKEN = "an-account-of-the-cluster"
GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


class KubernetesServer(ThreadingHTTPServer):
    """Pods and TrainJobs of one namespace; ``on_create`` is called with each TrainJob that arrives."""

    daemon_threads = True

    def __init__(self, namespace: str = "team") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.namespace = namespace
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.on_create: Callable[[dict[str, Any]], None] = lambda _: None
        self.failing: dict[str, list[int]] = {}  # "METHOD" -> statuses of the next requests; 0 hangs up
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def end_job(self, name: str, condition: str, message: str = "") -> None:
        """Let the TrainJob ``name`` end as ``Complete`` or ``Failed``."""
        self.jobs[name]["status"] = {
            "conditions": [
                {
                    "type": condition,
                    "status": "True",
                    "reason": condition,
                    "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        }

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is part of some tests."""


@contextlib.contextmanager
def kubernetes_server(**options: Any) -> Iterator[KubernetesServer]:
    """A server for the length of the block."""
    with KubernetesServer(**options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def write_kubeconfig(server: KubernetesServer, path: Path, token: str = TOKEN) -> Path:
    """A file like that of kubectl, which leads to ``server``."""
    named = {
        "clusters": ("cluster", {"server": server.url}),
        "users": ("user", {"token": token}),
        "contexts": ("context", {"cluster": "test", "user": "test"}),
    }
    content = {key: [{"name": "test", kind: value}] for key, (kind, value) in named.items()}
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "test", **content}))
    return path


def write_account(folder: Path, namespace: str = "team", token: str = TOKEN) -> Path:
    """The folder that a cluster mounts into each pod; without the authority, since the server speaks plain HTTP."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "namespace").write_text(namespace)
    return folder


def pod(name: str, node: str, run: str = "run-1", *, waiting: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod of the task at ``node`` of a workflow; ``waiting`` says why its container does not run."""
    state = {"waiting": waiting} if waiting else {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    container = {"name": "main", "image": "registry.example/raregrade:1", "imageID": "", "ready": False}
    return {
        "metadata": {
            "name": name,
            "labels": {"pipeline/runid": run},
            "annotations": {"workflows.argoproj.io/node-name": node},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": {
            "phase": "Pending" if waiting else "Running",
            "containerStatuses": [{**container, "restartCount": 0, "state": state}],
        },
    }


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: KubernetesServer

    def log_message(self, *_: Any) -> None:
        """Tests read what the client says."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not self._welcome("GET", parts.path):
            return
        inside = f"/api/v1/namespaces/{self.server.namespace}/pods"
        if parts.path == inside:
            key, _, value = parse_qs(parts.query)["labelSelector"][0].partition("=")
            items = [p for p in self.server.pods if p["metadata"]["labels"].get(key) == value]
            self._send(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        elif parts.path.startswith(f"{inside}/") and parts.path.endswith("/log"):
            name = parts.path.removeprefix(f"{inside}/").removesuffix("/log")
            if name in self.server.logs:
                self._send_raw(200, self.server.logs[name].encode(), "text/plain")
            else:
                self._refuse(404, f'pods "{name}" not found')
        else:
            self._job("GET", parts.path)

    def do_DELETE(self) -> None:
        self._take_body()
        if self._welcome("DELETE", self.path):
            self._job("DELETE", urlsplit(self.path).path)

    def do_POST(self) -> None:
        body = self._take_body()
        if not self._welcome("POST", self.path):
            return
        if urlsplit(self.path).path != f"{GROUP}/namespaces/{self.server.namespace}/trainjobs":
            self._refuse(403, f"cannot create resource at {self.path}")
            return
        job = json.loads(body)
        problem = problem_of(job)
        if problem:
            self._refuse(422, problem)
        elif job["metadata"]["name"] in self.server.jobs:
            self._refuse(409, f'trainjobs "{job["metadata"]["name"]}" already exists')
        else:
            self.server.jobs[job["metadata"]["name"]] = job
            self._send(201, job)
            self.server.on_create(job)

    def _job(self, method: str, path: str) -> None:
        prefix = f"{GROUP}/namespaces/{self.server.namespace}/trainjobs/"
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or name not in self.server.jobs:
            self._refuse(404, f'trainjobs "{name}" not found')
        elif method == "DELETE":
            self.server.deleted.append(name)
            self._send(200, self.server.jobs.pop(name))
        else:
            self._send(200, self.server.jobs[name])

    def _welcome(self, method: str, path: str) -> bool:
        self.server.asked.append(f"{method} {path}")
        statuses = self.server.failing.get(method, [])
        status = statuses.pop(0) if statuses else 200
        if status == 0:
            self.close_connection = True
            self.connection.close()
        elif status != 200:
            self._refuse(status, "etcdserver: leader changed")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Unauthorized")
        else:
            return True
        return False

    def _take_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self, status: int, message: str) -> None:
        self._send(
            status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
        )

    def _send(self, status: int, value: Any) -> None:
        self._send_raw(status, json.dumps(value).encode(), "application/json")

    def _send_raw(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def problem_of(job: dict[str, Any]) -> str:
    """Why a cluster would refuse the TrainJob; empty where it would not."""
    name = job.get("metadata", {}).get("name", "")
    if not _NAME.match(name) or len(name) > 63:
        return f"metadata.name: {name!r} is no name"
    if (job.get("apiVersion"), job.get("kind")) != ("trainer.kubeflow.org/v1alpha1", "TrainJob"):
        return "no TrainJob of trainer.kubeflow.org/v1alpha1"
    try:
        model = models.TrainerV1alpha1TrainJob.from_dict(job)
    except ValidationError as err:
        return str(err)
    kept = model.to_dict() if model else {}
    return "" if kept == job else f"unknown fields: {_lost(job, kept)}"


def _lost(value: Any, kept: Any, where: str = "") -> list[str]:
    if isinstance(value, dict) and isinstance(kept, dict):
        return [path for key in value for path in _lost(value[key], kept.get(key), f"{where}.{key}")]
    if isinstance(value, list) and isinstance(kept, list):
        pairs = zip(value, kept, strict=False)
        return [path for i, (a, b) in enumerate(pairs) for path in _lost(a, b, f"{where}[{i}]")]
    return [] if value == kept else [where]
