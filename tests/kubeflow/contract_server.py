"""A server on a real socket that speaks as Kubeflow Pipelines does, for whatever talks to a host.

Every body is read into, and every answer written from, the models of ``kfp_server_api``, which Kubeflow generates from
the definition of its API: a field that it does not know is refused, as its gateway refuses it. What the host checks by
itself is checked here too: token, namespace, cron, concurrency. ``requests`` keeps all that it was asked.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import kfp_server_api as kfp

TOKEN = "a-service-account-token"
V2 = "/apis/v2beta1"
_API = kfp.ApiClient()
_ENABLED = {"enable": ("ENABLE", "ENABLED"), "disable": ("DISABLE", "DISABLED")}


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None


@dataclass
class Trouble:
    """What is done to the next requests: a refusal, a hang-up, a delay, a page for people."""

    status: int = 0
    message: str = ""
    drop: bool = False
    seconds: float = 0.0
    html: str = ""
    times: int = 1_000_000


@dataclass
class State:
    """What the host knows."""

    experiments: list[Any] = field(default_factory=list)
    runs: list[Any] = field(default_factory=list)
    schedules: list[Any] = field(default_factory=list)
    pipelines: list[Any] = field(default_factory=list)
    versions: list[Any] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)


class KubeflowServer(ThreadingHTTPServer):
    """``token`` None asks nobody who they are; ``multi_user`` False knows no namespaces."""

    daemon_threads = True

    def __init__(self, token: str | None = TOKEN, namespace: str = "team", multi_user: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.namespace, self.multi_user = token, namespace, multi_user
        self.requests: list[Request] = []
        self.state = State()
        self.run_states = ["PENDING", "RUNNING", "SUCCEEDED"]  # one for each time that a run is asked for
        self.troubles: dict[str, Trouble] = {}  # "METHOD /end of the path" -> what happens
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self) -> list[tuple[str, str]]:
        """Method and path of all requests, in order."""
        return [(request.method, request.path) for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is part of some tests."""


@contextlib.contextmanager
def kubeflow_server(**options: Any) -> Iterator[KubeflowServer]:
    """A server for the length of the block."""
    with KubeflowServer(**options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


class Refused(Exception):
    """The host refuses: HTTP status, code of gRPC, message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_model(body: bytes, name: str) -> Any:
    """``body`` as a model of the API. Raises Refused for a field that it has not, or a value it cannot hold."""
    try:
        value = json.loads(body)
    except ValueError as err:
        raise Refused(400, f"invalid JSON: {err}") from err
    _known_fields(value, name)
    try:
        return _API.deserialize(SimpleNamespace(data=body), name)
    except (ValueError, TypeError, kfp.ApiException) as err:
        raise Refused(400, f"{name}: {err}") from err


def _known_fields(value: Any, name: str) -> None:
    model = getattr(kfp.models, name, None)
    if not isinstance(value, dict) or not hasattr(model, "attribute_map"):
        return
    for key, item in value.items():
        found = [attribute for attribute, wire in model.attribute_map.items() if wire == key]
        if not found:
            raise Refused(400, f"unknown field {key!r} in {name}")
        kind = model.openapi_types[found[0]]
        inner = kind.removeprefix("list[").removesuffix("]")
        for part in item if kind.startswith("list[") and isinstance(item, list) else [item]:
            _known_fields(part, inner)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: KubeflowServer

    def log_message(self, *_: Any) -> None:
        """Tests read what the client says."""

    def do_GET(self) -> None:
        self._answer_to("GET")

    def do_POST(self) -> None:
        self._answer_to("POST")

    def do_DELETE(self) -> None:
        self._answer_to("DELETE")

    def _answer_to(self, method: str) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        is_json = "json" in self.headers.get("Content-Type", "")
        body = json.loads(raw) if raw and is_json else raw or None
        self.server.requests.append(Request(method, parts.path, query, body, self.headers.get("Authorization")))
        trouble = self._trouble(f"{method} {parts.path}")
        if trouble.seconds:
            self.server.stopping.wait(trouble.seconds)
        if trouble.drop:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        if trouble.html:
            self._send(200, trouble.html, "text/html; charset=utf-8")
            return
        try:
            if trouble.status:
                raise Refused(trouble.status, trouble.message)
            self._authenticate()
            if parts.path == "/k8s/pod/logs":
                self._send(200, self._pod_log(query), "text/plain; charset=utf-8")
                return
            answer = self._route(method, unquote(parts.path.removeprefix(V2)), query, raw)
            self._send(200, json.dumps(_API.sanitize_for_serialization(answer)), "application/json")
        except Refused as err:
            text = json.dumps({"error": str(err), "message": str(err), "code": 7, "details": []})
            self._send(err.status, text, "application/json")

    def _trouble(self, request: str) -> Trouble:
        for key, trouble in self.server.troubles.items():
            method, _, end = key.rpartition(" ")
            if trouble.times > 0 and request.startswith(method) and request.endswith(end):
                trouble.times -= 1
                return trouble
        return Trouble()

    def _authenticate(self) -> None:
        if self.server.token is None:
            return
        given = self.headers.get("Authorization")
        if given is None:
            raise Refused(401, "Request header error: there is no user identity header")
        if given != f"Bearer {self.server.token}":
            raise Refused(401, "Unauthenticated: the token has expired")

    def _authorize(self, namespace: str | None) -> None:
        if not self.server.multi_user:
            if namespace:
                raise Refused(400, "InvalidInputError: in single-user mode a namespace is not expected")
            return
        if not namespace:
            raise Refused(400, "InvalidInputError: a namespace must be given")
        if namespace != self.server.namespace:
            raise Refused(403, f"PermissionDenied: not authorized to list experiments in {namespace}")

    def _route(self, method: str, path: str, query: dict[str, str], raw: bytes) -> Any:
        name, _, rest = path.lstrip("/").partition("/")
        routes = {
            "healthz": self._health,
            "experiments": self._experiments,
            "runs": self._runs,
            "recurringruns": self._schedules,
            "pipelines": self._upload,
        }
        if name not in routes:
            raise Refused(404, f"Not Found: {method} {path}")
        return routes[name](method, rest, query, raw)

    def _health(self, method: str, rest: str, query: dict[str, str], raw: bytes) -> Any:
        return kfp.V2beta1GetHealthzResponse(multi_user=self.server.multi_user)

    def _runs(self, method: str, rest: str, query: dict[str, str], raw: bytes) -> Any:
        if not rest:
            return self._create_run(raw) if method == "POST" else self._list_runs(query)
        key, _, verb = rest.partition(":")
        run = self._find(self.server.state.runs, "run_id", key, "Run")
        if (method, verb) == ("POST", "terminate"):
            run.state = "CANCELING"
            return {}
        states = self.server.run_states
        run.state = states.pop(0) if len(states) > 1 else states[0]
        return run

    def _schedules(self, method: str, rest: str, query: dict[str, str], raw: bytes) -> Any:
        if not rest:
            return self._create_schedule(raw) if method == "POST" else self._list_schedules(query)
        key, _, verb = rest.partition(":")
        found = self._find(self.server.state.schedules, "recurring_run_id", key, "RecurringRun")
        if method == "DELETE":
            self.server.state.schedules.remove(found)
            return {}
        if method == "POST" and verb in _ENABLED:
            found.mode, found.status = _ENABLED[verb]
            return {}
        return found

    def _find(self, items: list[Any], attribute: str, value: str, kind: str) -> Any:
        for item in items:
            if getattr(item, attribute) == value:
                return item
        raise Refused(404, f"ResourceNotFoundError: {kind} {value} not found")

    def _experiments(self, method: str, rest: str, query: dict[str, str], raw: bytes) -> Any:
        state = self.server.state
        if method == "POST":
            experiment = read_model(raw, "V2beta1Experiment")
            self._authorize(experiment.namespace)
            if any(e.display_name == experiment.display_name for e in state.experiments):
                raise Refused(409, f"AlreadyExistsError: experiment {experiment.display_name} already exists")
            experiment.experiment_id = f"experiment-{len(state.experiments) + 1}"
            state.experiments.append(experiment)
            return experiment
        self._authorize(query.get("namespace"))
        found = state.experiments
        if "filter" in query:
            (predicate,) = json.loads(query["filter"])["predicates"]
            if (predicate["operation"], predicate["key"]) not in ((1, "display_name"), ("EQUALS", "display_name")):
                raise Refused(400, f"InvalidInputError: filter {predicate}")
            found = [e for e in found if e.display_name == predicate["stringValue"]]
        return kfp.V2beta1ListExperimentsResponse(experiments=found or None, total_size=len(found))

    def _check_work(self, work: Any) -> None:
        """What a run and a schedule have in common."""
        if not work.display_name:
            raise Refused(400, "InvalidInputError: the display name is empty")
        self._find(self.server.state.experiments, "experiment_id", work.experiment_id, "Experiment")
        spec = (work.pipeline_spec or {}).get("pipeline_spec", work.pipeline_spec)
        if not spec or not {"pipelineInfo", "root", "schemaVersion"} <= set(spec):
            raise Refused(400, "InvalidInputError: unknown template format")
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = work.runtime_config.parameters or {}
        missing = [
            n for n, p in inputs.items() if not p.get("isOptional") and "defaultValue" not in p and n not in given
        ]
        if missing or set(given) - set(inputs):
            raise Refused(400, f"InvalidInputError: parameters {missing or sorted(set(given) - set(inputs))}")

    def _create_run(self, raw: bytes) -> Any:
        run = read_model(raw, "V2beta1Run")
        self._check_work(run)
        run.run_id, run.state = f"run-{len(self.server.state.runs) + 1}", "PENDING"
        run.created_at = datetime.now(UTC)
        self.server.state.runs.append(run)
        return run

    def _list_runs(self, query: dict[str, str]) -> Any:
        self._authorize(query.get("namespace"))
        runs = sorted(self.server.state.runs, key=lambda r: r.created_at, reverse="desc" in query.get("sort_by", ""))
        return kfp.V2beta1ListRunsResponse(runs=runs[: int(query.get("page_size") or 10)] or None, total_size=len(runs))

    def _create_schedule(self, raw: bytes) -> Any:
        schedule = read_model(raw, "V2beta1RecurringRun")
        self._check_work(schedule)
        if not 1 <= int(schedule.max_concurrency or 0) <= 10:
            raise Refused(400, "InvalidInputError: max concurrency must be at least 1 and at most 10")
        trigger = schedule.trigger
        cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else None
        if cron and not cron.startswith("@") and len(cron.split()) != 6:
            raise Refused(400, f"InvalidInputError: cron {cron!r} is not a supported format")
        if not cron and not (
            trigger and trigger.periodic_schedule and int(trigger.periodic_schedule.interval_second) > 0
        ):
            raise Refused(400, "InvalidInputError: the trigger is empty")
        schedule.recurring_run_id = f"schedule-{len(self.server.requests)}"
        schedule.status = f"{schedule.mode}D"
        self.server.state.schedules.append(schedule)
        return schedule

    def _list_schedules(self, query: dict[str, str]) -> Any:
        """Two a page, so that a client which reads the first page alone is found out."""
        self._authorize(query.get("namespace"))
        start = int(query.get("page_token") or 0)
        rest = self.server.state.schedules[start:]
        token = str(start + 2) if len(rest) > 2 else None
        return kfp.V2beta1ListRecurringRunsResponse(recurring_runs=rest[:2] or None, next_page_token=token)

    def _upload(self, method: str, rest: str, query: dict[str, str], raw: bytes) -> Any:
        if b'name="uploadfile"' not in raw:
            raise Refused(400, "InvalidInputError: no file `uploadfile` in the form")
        state = self.server.state
        if rest == "upload":
            pipeline = kfp.V2beta1Pipeline(
                pipeline_id=f"pipeline-{len(state.pipelines) + 1}", display_name=query["name"]
            )
            if any(p.display_name == pipeline.display_name for p in state.pipelines):
                raise Refused(409, f"AlreadyExistsError: pipeline {pipeline.display_name} already exists")
            state.pipelines.append(pipeline)
            return pipeline
        self._find(state.pipelines, "pipeline_id", query["pipelineid"], "Pipeline")
        version = kfp.V2beta1PipelineVersion(
            pipeline_id=query["pipelineid"],
            pipeline_version_id=f"version-{len(state.versions) + 1}",
            display_name=query["name"],
        )
        state.versions.append(version)
        return version

    def _pod_log(self, query: dict[str, str]) -> str:
        if not {"podname", "podnamespace", "runid"} <= set(query):
            raise Refused(422, "podname, podnamespace and runid are required")
        if query["podname"] not in self.server.state.logs:
            raise Refused(404, "pod not found")
        return self.server.state.logs[query["podname"]]

    def _send(self, status: int, text: str, kind: str) -> None:
        data = text.encode()
        with contextlib.suppress(OSError):  # the client may have stopped waiting
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def task_detail(name: str, state: str, *, pods: tuple[str, ...] = (), minutes: float = 1.0) -> Any:
    """A task as a run shows it. As on a real host, only the names of its children's pods are filled in."""
    now = time.time()
    started = datetime.fromtimestamp(now - 60 * minutes, UTC)
    ended = datetime.fromtimestamp(0 if state in ("RUNNING", "PENDING") else now, UTC)
    return kfp.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state,
        start_time=started,
        create_time=started,
        end_time=ended,
        child_tasks=[kfp.PipelineTaskDetailChildTask(pod_name=pod) for pod in pods] or None,
    )
