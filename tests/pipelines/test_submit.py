"""``raregrade pipeline submit`` against a server on a real socket that speaks as Kubeflow Pipelines does.

Requests are read into, and answers written from, the models of ``kfp_server_api``, the client that
Kubeflow generates from the definition of its API.
"""

import json
import socket
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import pytest

from pipelines.arguments import pipeline_arguments
from pipelines.compile import compile_pipeline
from pipelines.submit import Host, check_offline, read_token, submit, wait_for
from raregrade.config import params_from_dict
from raregrade.errors import RaregradeError, UserError

TOKEN = "a-service-account-token"
API = kfp_server_api.ApiClient()


class KubeflowHost(ThreadingHTTPServer):
    """What ``submit`` meets: a health check, experiments by namespace, runs. Keeps all it is asked in ``requests``."""

    daemon_threads = True

    def __init__(self, token=TOKEN, namespace="team", multi_user=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.namespace, self.multi_user = token, namespace, multi_user
        self.requests, self.experiments, self.runs = [], [], []
        self.states = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.failing = {}  # path -> (status, body)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, query = self.received(None)
        if path.endswith("/healthz"):
            self.answer(kfp_server_api.V2beta1GetHealthzResponse(multi_user=self.server.multi_user))
        elif path.endswith("/experiments"):
            if self.refused_namespace(query.get("namespace", [None])[0]):
                return
            (predicate,) = json.loads(query["filter"][0])["predicates"]
            assert (predicate["operation"], predicate["key"]) == (1, "display_name")
            found = [e for e in self.server.experiments if e.display_name == predicate["stringValue"]]
            self.answer(kfp_server_api.V2beta1ListExperimentsResponse(experiments=found or None, total_size=len(found)))
        elif "/runs/" in path:
            (run,) = [r for r in self.server.runs if r.run_id == path.rsplit("/", 1)[1]]
            run.state = self.server.states.pop(0) if len(self.server.states) > 1 else self.server.states[0]
            self.answer(run)
        else:
            self.refuse(404, "no such page")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, _ = self.received(json.loads(body))
        if path.endswith("/experiments"):
            experiment = API.deserialize(SimpleNamespace(data=body), "V2beta1Experiment")
            if self.refused_namespace(experiment.namespace):
                return
            experiment.experiment_id = f"experiment-{len(self.server.experiments) + 1}"
            self.server.experiments.append(experiment)
            self.answer(experiment)
        elif path.endswith("/runs"):
            run = API.deserialize(SimpleNamespace(data=body), "V2beta1Run")
            run.run_id, run.state, run.created_at = f"run-{len(self.server.runs) + 1}", "PENDING", datetime.now(UTC)
            self.server.runs.append(run)
            self.answer(run)
        else:
            self.refuse(404, "no such page")

    def received(self, body):
        parts = urlsplit(self.path)
        self.server.requests.append((self.command, parts.path, body, self.headers.get("Authorization")))
        forced = next((v for k, v in self.server.failing.items() if parts.path.endswith(k)), None)
        if forced == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if forced is not None:
            self.refuse(*forced)
        elif self.server.token and self.headers.get("Authorization") is None:
            self.refuse(401, "Request header error: there is no user identity header")
        elif self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.refuse(401, "Unauthenticated: the token has expired")
        else:
            return parts.path, parse_qs(parts.query)
        raise ConnectionAbortedError

    def refused_namespace(self, namespace):
        if self.server.multi_user and namespace != self.server.namespace:
            self.refuse(403, f"PermissionDenied: not authorized to list experiments in {namespace}")
            return True
        return False

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionAbortedError:
            self.close_connection = True

    def answer(self, model):
        self.send(200, json.dumps(API.sanitize_for_serialization(model)), "application/json")

    def refuse(self, status, message):
        self.send(status, json.dumps({"error": message, "message": message, "code": 7}), "application/json")

    def send(self, status, text, kind):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    with KubeflowHost() as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield host
        host.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    out = tmp_path_factory.mktemp("compiled") / "compare_losses.yaml"
    compile_pipeline("compare_losses", out)
    return out


@pytest.fixture
def arguments(raw_params):
    return pipeline_arguments(params_from_dict(raw_params), raw_data="/mnt/raw", data_revision="r1")


@pytest.fixture
def send(package, arguments):
    def send(url, *, token=TOKEN, namespace="team", **options):
        host = Host(url, namespace, token)
        return host, submit(host, package, arguments, run_name="a run", experiment="severity", **options)

    return send


def test_a_run_arrives_with_pipeline_arguments_experiment_and_token(server, send, arguments):
    _, run = send(server.url)
    assert run.run_id == "run-1"
    assert run.page == f"{server.url}/#/runs/details/run-1"
    (sent,) = server.runs
    assert sent.display_name == "a run"
    assert sent.experiment_id == "experiment-1"
    assert sent.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "compare-losses"
    assert "kubernetes" in sent.pipeline_spec["platform_spec"]["platforms"]
    assert sent.runtime_config.parameters == arguments
    assert {authorization for *_, authorization in server.requests} == {f"Bearer {TOKEN}"}


def test_the_requests_are_those_that_kubeflow_documents(server, send):
    send(server.url)
    v2 = "/apis/v2beta1"
    assert [(method, path) for method, path, *_ in server.requests] == [
        ("GET", f"{v2}/healthz"),
        ("GET", f"{v2}/experiments"),
        ("POST", f"{v2}/experiments"),
        ("POST", f"{v2}/runs"),
    ]


def test_a_second_run_joins_the_experiment_of_the_first(server, send):
    send(server.url)
    send(server.url)
    assert [e.display_name for e in server.experiments] == ["severity"]
    assert [r.experiment_id for r in server.runs] == ["experiment-1", "experiment-1"]


def test_without_cache_every_task_says_so(server, send):
    send(server.url, cache=False)
    tasks = server.runs[0].pipeline_spec["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not any(t["cachingOptions"].get("enableCache") for name, t in tasks.items() if name != "for-loop-1")


def test_a_host_for_one_user_needs_neither_token_nor_namespace(server, send):
    server.token, server.multi_user = None, False
    send(server.url, token=None, namespace=None)
    assert {authorization for *_, authorization in server.requests} == {None}


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"cannot reach {url}: .*refused.*Check --host"):
        submit(Host(url), None, {}, run_name="", experiment="")


def test_the_host_hangs_up(server, send):
    server.failing["/healthz"] = "drop"
    with pytest.raises(UserError, match=r"cannot reach .*Check --host"):
        send(server.url)


def test_the_token_is_missing(server, send):
    with pytest.raises(UserError, match=r"does not know who is asking \(.*no user identity.*\)\. Give --token-file"):
        send(server.url, token=None)


def test_the_token_has_expired(server, send):
    with pytest.raises(UserError, match=r"\(Unauthenticated: the token has expired\)\. Give a fresh token"):
        send(server.url, token="old")


def test_the_namespace_is_of_somebody_else(server, send):
    with pytest.raises(UserError, match=r"refuses it namespace 'others' \(PermissionDenied.*\)\. Check --namespace"):
        send(server.url, namespace="others")
    assert server.runs == []


def test_the_namespace_does_not_exist(server, send):
    server.failing["/experiments"] = (404, 'namespaces "team" not found')
    with pytest.raises(UserError, match=r"namespace 'team' \(namespaces \"team\" not found\)\. Check --namespace"):
        send(server.url)


def test_a_host_for_many_users_asks_for_the_namespace(server, send):
    with pytest.raises(UserError, match="serves many users: give --namespace"):
        send(server.url, namespace=None)


def test_the_run_is_refused(server, send):
    server.failing["/runs"] = (400, "InvalidInputError: unknown template format")
    with pytest.raises(UserError, match="refuses the run: InvalidInputError: unknown template format"):
        send(server.url)


def test_a_failure_of_the_host_is_no_error_of_the_user(server, send):
    server.failing["/runs"] = (500, "InternalServerError: database is locked")
    with pytest.raises(RaregradeError, match="failed with 500: InternalServerError: database is locked") as caught:
        send(server.url)
    assert caught.value.exit_code == 1


def test_a_login_page_is_not_taken_for_kubeflow(server, send, monkeypatch):
    monkeypatch.setattr(Handler, "answer", lambda self, model: self.send(200, "<html>Log in", "text/html"))
    with pytest.raises(UserError, match="answers, but not as Kubeflow Pipelines"):
        send(server.url)


def test_waiting_reports_each_state_and_ends_with_the_run(server, send):
    host, run = send(server.url)
    states = []
    wait_for(host, run, report=states.append, poll_seconds=0.01)
    assert states == ["PENDING", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_waiting_for_a_run_that_does_not_succeed_fails(server, send, state):
    server.states = ["RUNNING", state]
    host, run = send(server.url)
    with pytest.raises(RaregradeError, match=rf"ended as {state}.*#/runs/details/run-1") as caught:
        wait_for(host, run, poll_seconds=0.01)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("url", ["kubeflow.example.org", "ftp://kubeflow.example.org", "https://"])
def test_a_host_that_is_no_url_is_refused_offline(arguments, url):
    with pytest.raises(UserError, match="is not a URL"):
        check_offline(Host(url), arguments)


def test_raw_data_by_a_path_of_this_folder_are_refused_offline(arguments):
    with pytest.raises(UserError, match="give --raw-data with the absolute path"):
        check_offline(Host("https://host"), {**arguments, "raw_data": "data/raw/phantom"})


def test_a_tracking_store_in_a_file_is_refused_offline(arguments):
    with pytest.raises(UserError, match=r"sqlite:///mlflow.db.*vanish.*tracking\.uri=http"):
        check_offline(Host("https://host"), {**arguments, "tracking_uri": "sqlite:///mlflow.db"})


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot read"), ("\n", "does not hold a token"), ("a b", "one word")]
)
def test_a_token_file_without_a_token_is_refused(tmp_path, content, problem):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=problem):
        read_token(path)


def test_a_token_is_read_without_the_newline_at_its_end(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
