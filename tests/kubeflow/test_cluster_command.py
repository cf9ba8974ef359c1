"""``raregrade pipeline submit`` and ``compile --env`` as commands: what an environment fills in or gives way to."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from raregrade.cli.main import run
from tests.kubeflow.contract_server import TOKEN, Trouble, kubeflow_server
from tests.kubeflow.test_command import raregrade

IMAGE = "registry.example/raregrade:4f2a"


@pytest.fixture(autouse=True)
def _outside_a_cluster(monkeypatch, tmp_path):
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_TOKEN", tmp_path / "no-token")
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_NAMESPACE", tmp_path / "no-namespace")


@pytest.fixture
def server():
    with kubeflow_server() as host:
        yield host


@pytest.fixture
def environment(server, workplace):
    """The file of a cluster, and the command that names it."""
    content = {
        "host": server.url,
        "namespace": "team",
        "experiment": "severity-on-the-cluster",
        "image": IMAGE,
        "service_account": "runner",
        "tracking_uri": "http://mlflow.team:5000",
        "volumes": [{"claim": "data", "path": "/mnt/data"}],
        "raw_data": "/mnt/data/raw",
        "store": "/mnt/data/store",
    }
    (workplace / "mine.yaml").write_text(yaml.safe_dump(content))
    (workplace / "token").write_text(TOKEN)
    return ["--env", "mine.yaml", "--token-file", "token"]


def submitted(server, *arguments):
    """Submit in a process of its own, where no component is imported yet; the run that arrived."""
    done = raregrade("pipeline", "submit", "compare_losses", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{server.url}/#/runs/details/run-1"
    (sent,) = server.state.runs
    return sent


def images(sent):
    executors = sent.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"]
    return {executor["container"]["image"] for executor in executors.values()}


@pytest.mark.slow
def test_an_environment_fills_in_everything(server, environment):
    sent = submitted(server, *environment, "--no-check-image")
    given = sent.runtime_config.parameters
    assert images(sent) == {IMAGE}
    assert sent.service_account == "runner"
    assert server.state.experiments[0].display_name == "severity-on-the-cluster"
    assert (given["raw_data"], given["store"]) == ("/mnt/data/raw", "/mnt/data/store")
    assert given["tracking_uri"] == "http://mlflow.team:5000"
    platform = sent.pipeline_spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert platform["exec-train-model"]["pvcMount"][0]["constant"] == "data"


@pytest.mark.slow
def test_what_is_given_goes_before_the_environment(server, environment):
    other = "registry.example/other:1"
    given = ["--image", other, "--experiment", "mine", "--raw-data", "/mnt/data/new", "--store", ""]
    sent = submitted(server, *environment, "--no-check-image", *given, "--set", "tracking.uri=http://other:5000")
    values = sent.runtime_config.parameters
    assert images(sent) == {other}
    assert server.state.experiments[0].display_name == "mine"
    assert (values["raw_data"], values["store"], values["tracking_uri"]) == ("/mnt/data/new", "", "http://other:5000")


def test_another_namespace_goes_before_that_of_the_environment(server, environment, capsys):
    assert run(["pipeline", "submit", "compare_losses", *environment, "--namespace", "others", "--no-check-image"]) == 2
    assert "refuses it namespace 'others'" in capsys.readouterr().err


def test_a_tag_that_moves_is_refused_before_the_host_is_asked(server, environment, capsys):
    for image, problem in (
        ("registry.example/x:latest", "another image tomorrow"),
        ("registry.example/x", "has no tag"),
    ):
        assert run(["pipeline", "submit", "compare_losses", *environment, "--image", image]) == 2
        assert problem in capsys.readouterr().err
    assert server.requests == []


@pytest.fixture
def registry():
    """Has no image at all."""

    class Registry(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            body = b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_an_image_that_the_registry_does_not_have_is_refused_before_the_host_is_asked(server, environment, registry):
    arguments = ["pipeline", "submit", "compare_losses", *environment, "--image", f"{registry}/raregrade:4f2a"]
    done = raregrade(*arguments)
    assert done.returncode == 2
    assert f"the registry {registry} has no image {registry}/raregrade:4f2a" in done.stderr
    assert server.requests == []
    assert run([*arguments, "--no-check-image"]) == 0
    assert len(server.state.runs) == 1


def test_inside_a_cluster_host_namespace_and_token_are_its_own(server, workplace, tmp_path, monkeypatch, capsys):
    (tmp_path / "projected").write_text(TOKEN)
    (tmp_path / "namespace").write_text("team\n")
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_TOKEN", tmp_path / "projected")
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_URL", server.url)
    assert run(["pipeline", "submit", "compare_losses", "--raw-data", "/mnt/raw"]) == 0
    assert {request.authorization for request in server.requests} == {f"Bearer {TOKEN}"}
    assert server.state.experiments[0].namespace == "team"


def test_the_token_may_be_named_by_kubeflows_own_variable(server, workplace, monkeypatch):
    (workplace / "token").write_text(TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "token")
    arguments = ["--host", server.url, "--namespace", "team", "--raw-data", "/mnt/raw"]
    assert run(["pipeline", "submit", "compare_losses", *arguments]) == 0


def test_without_a_host_it_asks_for_one(workplace, capsys):
    assert run(["pipeline", "submit", "compare_losses", "--raw-data", "/mnt/raw"]) == 2
    assert "which cluster? Give --env, or --host" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["kubeflow.example.org", "ftp://kubeflow.example.org", "https://"])
def test_a_host_that_is_no_url_is_refused(workplace, capsys, host):
    assert run(["pipeline", "submit", "compare_losses", "--host", host, "--raw-data", "/mnt/raw"]) == 2
    assert "is not a URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trouble", "code", "sentence"),
    [
        (Trouble(seconds=30), 1, "did not answer within 0.3 s"),
        (Trouble(drop=True), 2, "cannot reach"),
        (Trouble(401, "token expired"), 2, "does not know who is asking (token expired)"),
        (Trouble(403, "no"), 2, "refuses it namespace 'team' (no)"),
        (Trouble(404, "no such namespace"), 2, "Check --namespace and --host"),
        (Trouble(409, "exists"), 2, "has something of that name already"),
        (Trouble(500, "database is locked"), 1, "failed with 500: database is locked"),
        (Trouble(html="<html>Log in</html>"), 2, "answers, but not as Kubeflow Pipelines"),
    ],
)
def test_whatever_goes_wrong_is_one_line(server, environment, capsys, trouble, code, sentence):  # noqa: PLR0917
    server.troubles["GET /experiments"] = trouble
    arguments = [*environment, "--image", "localhost/raregrade:1", "--timeout", "0.3"]
    assert run(["pipeline", "submit", "compare_losses", *arguments]) == code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("note:")]
    assert line.startswith("raregrade: ")
    assert sentence in line
    assert server.state.runs == []


@pytest.mark.slow
def test_compiling_for_an_environment_writes_two_documents_with_its_settings(environment, workplace):
    done = raregrade("pipeline", "compile", "compare_losses", "--env", "mine.yaml", "--out", "c.yaml")
    assert done.returncode == 0, done.stderr
    assert f"image {IMAGE}, environment mine.yaml" in done.stdout
    spec, platform = yaml.safe_load_all((workplace / "c.yaml").read_text())
    assert {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()} == {IMAGE}
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert all("pvcMount" in executor for executor in executors.values())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--image", "r.example/x:latest"], "another image tomorrow"),
        (["--image", "r.example/x"], "has no tag"),
    ],
)
def test_compiling_refuses_a_tag_that_moves(environment, workplace, capsys, arguments, problem):
    assert run(["pipeline", "compile", "compare_losses", "--env", "mine.yaml", "--out", "c.yaml", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not (workplace / "c.yaml").exists()


def test_the_file_beside_the_pipeline_belongs_to_no_cluster(environment, capsys):
    assert run(["pipeline", "compile", "compare_losses", "--env", "mine.yaml"]) == 2
    assert "with --env, give the pipeline and --out" in capsys.readouterr().err


def test_nobody_listens(workplace, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for command in (["status", "run-1"], ["list"], ["logs", "run-1"], ["schedule", "--list"]):
        assert run(["pipeline", *command, "--host", url]) == 2
        assert f"cannot reach {url}: " in capsys.readouterr().err
