"""Sending a pipeline to a Kubeflow Pipelines host and waiting for its run, over a real socket."""

import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kfp.client import Client

from raregrade.config import params_from_dict
from raregrade.errors import RaregradeError, UserError
from raregrade.kubeflow.compile import arguments_of, compile_pipeline
from raregrade.kubeflow.host import Host, HostFailedError, UnreachableError, find_token_file, read_token
from raregrade.kubeflow.submit import check_offline, pipeline_spec, submit, wait_for
from tests.kubeflow.contract_server import TOKEN, V2, Trouble, kubeflow_server


@pytest.fixture
def server():
    with kubeflow_server() as host:
        yield host


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    out = tmp_path_factory.mktemp("compiled") / "compare_losses.yaml"
    compile_pipeline("compare_losses", out)
    return out


@pytest.fixture
def arguments(raw_params):
    return arguments_of("compare_losses", params_from_dict(raw_params), raw_data="/mnt/raw", data_revision="r1")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def send(package, arguments, token_file):
    def send(url, *, token_file=token_file, namespace="team", timeout=5.0, **options):
        host = Host(url, namespace, token_file, timeout=timeout)
        return host, submit(host, package, arguments, run_name="a run", experiment="severity", **options)

    return send


def closed_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_run_arrives_with_pipeline_arguments_experiment_account_and_token(server, send, arguments):
    _, run = send(server.url, service_account="raregrade-runner")
    assert run.run_id == "run-1"
    assert run.page == f"{server.url}/#/runs/details/run-1"
    (sent,) = server.state.runs
    assert (sent.display_name, sent.experiment_id) == ("a run", "experiment-1")
    assert sent.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "compare-losses"
    assert "kubernetes" in sent.pipeline_spec["platform_spec"]["platforms"]
    assert sent.runtime_config.parameters == arguments
    assert sent.service_account == "raregrade-runner"
    assert {request.authorization for request in server.requests} == {f"Bearer {TOKEN}"}


def test_the_requests_are_those_that_kubeflow_documents(server, send):
    send(server.url)
    assert server.asked() == [
        ("GET", f"{V2}/healthz"),
        ("GET", f"{V2}/experiments"),
        ("POST", f"{V2}/experiments"),
        ("POST", f"{V2}/runs"),
    ]


@pytest.fixture
def own_client(monkeypatch, tmp_path):
    """Kubeflow's own client, without the settings that it may have left in the home folder."""
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "no-context.json"))

    def own_client(url):
        with pytest.warns(FutureWarning):
            return Client(host=url, existing_token=TOKEN, namespace="team")

    return own_client


def test_what_is_sent_is_what_kubeflows_own_client_sends(server, send, package, arguments, own_client):
    send(server.url, service_account="someone")
    with kubeflow_server() as other:
        own_client(other.url).create_run_from_pipeline_package(
            str(package),
            arguments=arguments,
            run_name="a run",
            experiment_name="severity",
            namespace="team",
            service_account="someone",
        )
        assert [(r.method, r.path, r.body) for r in server.requests[1:]] == [
            (r.method, r.path, r.body) for r in other.requests if not r.path.endswith("/healthz")
        ]
        ours, theirs = (next(r.query for r in s.requests if r.path.endswith("/experiments")) for s in (server, other))
        assert ours == {key: value for key, value in theirs.items() if value}


@pytest.mark.parametrize("call", ["get_run", "upload", "schedule"])
def test_the_contract_server_takes_what_kubeflows_own_client_sends(server, package, arguments, own_client, call):
    client = own_client(server.url)
    experiment = client.create_experiment("severity", namespace="team").experiment_id
    if call == "get_run":
        run = client.run_pipeline(experiment, "a run", str(package), params=arguments)
        server.run_states = ["SUCCEEDED"]
        assert client.wait_for_run_completion(run.run_id, timeout=5, sleep_duration=0).state == "SUCCEEDED"
        client.terminate_run(run.run_id)
    elif call == "upload":
        pipeline = client.upload_pipeline(str(package), pipeline_name="compare-losses")
        assert client.upload_pipeline_version(str(package), "v2", pipeline_id=pipeline.pipeline_id).display_name == "v2"
    else:
        made = client.create_recurring_run(
            experiment, "nightly", cron_expression="0 0 3 * * *", params=arguments, pipeline_package_path=str(package)
        )
        client.disable_recurring_run(made.recurring_run_id)
        assert client.list_recurring_runs(namespace="team").recurring_runs[0].status == "DISABLED"
        client.delete_recurring_run(made.recurring_run_id)


def test_a_second_run_joins_the_experiment_of_the_first(server, send):
    send(server.url)
    send(server.url)
    assert [e.display_name for e in server.state.experiments] == ["severity"]
    assert [r.experiment_id for r in server.state.runs] == ["experiment-1", "experiment-1"]


def test_an_experiment_that_somebody_else_has_just_created_is_joined(server, send):
    send(server.url)
    server.troubles["GET /experiments"] = Trouble(times=0)
    found = []

    def none_the_first_time(request):
        found.append(request)
        return len(found) == 1

    original = server.RequestHandlerClass._experiments

    def experiments(handler, method, rest, query, raw):
        if method == "GET" and none_the_first_time(query):
            return {}
        return original(handler, method, rest, query, raw)

    server.RequestHandlerClass = type("Racing", (server.RequestHandlerClass,), {"_experiments": experiments})
    send(server.url)
    assert [r.experiment_id for r in server.state.runs] == ["experiment-1", "experiment-1"]
    assert len(found) == 2


def test_without_cache_every_task_says_so_inside_loops_too(package):
    """kfp's own client switches it off for the outermost tasks alone, so that the trainings stayed cached."""

    def cached(spec):
        components = [spec["root"], *spec["components"].values()]
        tasks = {n: t for c in components for n, t in c.get("dag", {}).get("tasks", {}).items()}
        return {n for n, t in tasks.items() if t.get("cachingOptions", {}).get("enableCache")}

    assert "train-model" in cached(pipeline_spec(package)["pipeline_spec"])
    assert cached(pipeline_spec(package, cache=False)["pipeline_spec"]) == set()


def test_a_host_for_one_user_needs_neither_token_nor_namespace(send):
    with kubeflow_server(token=None, multi_user=False) as server:
        send(server.url, token_file=None, namespace=None)
        assert {request.authorization for request in server.requests} == {None}


def test_a_host_for_one_user_is_not_asked_for_a_namespace(send):
    """An environment names one for the pods; such a host refuses it."""
    with kubeflow_server(token=None, multi_user=False) as server:
        send(server.url, token_file=None, namespace="kubeflow")
        assert not any("namespace" in request.query for request in server.requests)


def test_nobody_listens(send):
    url = closed_url()
    with pytest.raises(UnreachableError, match=rf"cannot reach {url}: .*refused.*\. Check --host"):
        send(url)


@pytest.mark.parametrize("where", ["GET /healthz", "GET /experiments"])
def test_the_host_hangs_up(server, send, where):
    server.troubles[where] = Trouble(drop=True)
    with pytest.raises(UnreachableError, match=rf"cannot reach {server.url}: Remote end closed .*Check --host"):
        send(server.url)
    assert server.state.runs == []


@pytest.mark.parametrize("where", ["GET /healthz", "GET /experiments", "POST /experiments", "POST /runs"])
def test_no_request_waits_for_ever(server, send, where):
    server.troubles[where] = Trouble(seconds=30)
    started = time.monotonic()
    with pytest.raises(HostFailedError, match=r"did not answer within 0\.2 s\. Try again, or .* --timeout") as caught:
        send(server.url, timeout=0.2)
    assert time.monotonic() - started < 5
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("trouble", [Trouble(seconds=30), Trouble(drop=True)])
def test_a_run_that_may_have_started_is_neither_sent_twice_nor_called_unsent(server, send, trouble):
    server.troubles["POST /runs"] = trouble
    with pytest.raises(HostFailedError, match=r"may have started all the same: look for 'a run' at .*#/runs"):
        send(server.url, timeout=0.2)
    assert server.asked().count(("POST", f"{V2}/runs")) == 1


def test_the_token_is_missing(server, send):
    with pytest.raises(UserError, match=r"does not know who is asking \(.*no user identity.*\)\. Give --token-file"):
        send(server.url, token_file=None)


def test_the_token_has_expired(server, send, token_file):
    token_file.write_text("old")
    with pytest.raises(UserError, match=r"\(Unauthenticated: the token has expired\)\. Give a fresh token"):
        send(server.url)


def test_the_namespace_is_of_somebody_else(server, send):
    with pytest.raises(UserError, match=r"refuses it namespace 'others' \(PermissionDenied.*\)\. Check --namespace"):
        send(server.url, namespace="others")
    assert server.state.runs == []


def test_the_namespace_does_not_exist(server, send):
    server.troubles["GET /experiments"] = Trouble(404, 'namespaces "team" not found')
    with pytest.raises(UserError, match=r"namespace 'team' \(namespaces \"team\" not found\)\. Check --namespace"):
        send(server.url)


def test_a_host_for_many_users_asks_for_the_namespace(server, send):
    with pytest.raises(UserError, match="serves many users: give --namespace"):
        send(server.url, namespace=None)


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (Trouble(400, "InvalidInputError: unknown template format"), "refuses the request: InvalidInputError: unknown"),
        (Trouble(409, "AlreadyExistsError: a run"), r"has something of that name already \(AlreadyExistsError: a run"),
        (Trouble(403, "PermissionDenied: runs"), r"refuses it namespace 'team' \(PermissionDenied: runs\)"),
    ],
)
def test_the_run_is_refused(server, send, trouble, sentence):
    server.troubles["POST /runs"] = trouble
    with pytest.raises(UserError, match=sentence):
        send(server.url)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_of_the_host_is_no_error_of_the_user(server, send, status):
    server.troubles["POST /runs"] = Trouble(status, "InternalServerError: database is locked")
    with pytest.raises(RaregradeError, match=f"failed with {status}: InternalServerError: database") as caught:
        send(server.url)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("where", ["GET /healthz", "GET /experiments", "POST /runs"])
def test_a_login_page_is_not_taken_for_kubeflow(server, send, where):
    server.troubles[where] = Trouble(html="<html>Log in</html>")
    with pytest.raises(UserError, match="answers, but not as Kubeflow Pipelines"):
        send(server.url)


def test_waiting_reports_each_state_and_ends_with_the_run(server, send):
    host, run = send(server.url)
    states = []
    wait_for(host, run, report=states.append, poll_seconds=0.01)
    assert states == ["PENDING", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_waiting_for_a_run_that_does_not_succeed_fails(server, send, state):
    server.run_states = ["RUNNING", state]
    host, run = send(server.url)
    with pytest.raises(RaregradeError, match=rf"ended as {state}.*#/runs/details/run-1") as caught:
        wait_for(host, run, poll_seconds=0.01)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("trouble", [Trouble(503, "upgrade", times=2), Trouble(drop=True, times=4)])
def test_waiting_outlasts_a_host_that_is_away_for_a_while(server, send, trouble):
    server.run_states = ["SUCCEEDED"]
    host, run = send(server.url)
    server.troubles["GET /runs/run-1"] = trouble
    said = []
    wait_for(host, run, report=said.append, poll_seconds=0.01)
    assert said[-1] == "SUCCEEDED"
    assert "Asking again" in said[0]


def test_waiting_gives_up_on_a_host_that_stays_away(server, send):
    host, run = send(server.url)
    server.troubles["GET /runs/run-1"] = Trouble(500, "database is locked")
    with pytest.raises(HostFailedError, match="database is locked"):
        wait_for(host, run, poll_seconds=0.01, patience_seconds=0.1)


def test_waiting_reads_the_token_anew_since_clusters_replace_it(server, send, token_file):
    server.run_states = ["RUNNING"]
    host, run = send(server.url)

    def rotate(state):
        if state == "RUNNING":
            server.token = "the-next-token"
            token_file.write_text("the-next-token")
            server.run_states = ["SUCCEEDED"]

    wait_for(host, run, report=rotate, poll_seconds=0.01)
    assert server.requests[-1].authorization == "Bearer the-next-token"


def test_what_is_seen_at_the_pods_ends_the_waiting(server, send):
    server.run_states = ["RUNNING"]
    host, run = send(server.url)

    def look():
        raise UserError("the cluster cannot get an image")

    with pytest.raises(UserError, match="cannot get an image"):
        wait_for(host, run, look_at_pods=look, poll_seconds=0.01)


def test_submissions_at_the_same_time_do_not_disturb_each_other(server, send):
    threads = [threading.Thread(target=send, args=(server.url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.state.experiments) == 1
    assert len(server.state.runs) == 4


def test_raw_data_by_a_path_of_this_folder_are_refused_offline(arguments):
    with pytest.raises(UserError, match="give --raw-data with the absolute path"):
        check_offline({**arguments, "raw_data": "data/raw/phantom"})


def test_a_tracking_store_in_a_file_is_refused_offline(arguments):
    with pytest.raises(UserError, match=r"sqlite:///mlflow.db.*vanish.*tracking\.uri=http"):
        check_offline({**arguments, "tracking_uri": "sqlite:///mlflow.db"})


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot read"), ("\n", "does not hold a token"), ("a b", "one word")]
)
def test_a_token_file_without_a_token_is_refused(tmp_path, content, problem):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=problem):
        read_token(path)


def test_inside_a_cluster_the_projected_token_is_used_unless_another_is_given(tmp_path, monkeypatch, token_file):
    projected = tmp_path / "projected"
    projected.write_text("projected-token")
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_TOKEN", projected)
    assert find_token_file(None) == projected
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token_file))
    assert find_token_file(None) == token_file
    assert find_token_file(projected) == projected


def test_outside_a_cluster_there_is_no_token_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    monkeypatch.setattr("raregrade.kubeflow.host.IN_CLUSTER_TOKEN", tmp_path / "nothing")
    assert find_token_file(None) is None


def test_a_token_is_not_shown_with_its_host(token_file):
    assert TOKEN not in repr(Host("https://host", token_file=token_file))


def test_a_pipeline_without_settings_for_kubernetes_is_one_document(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"root": {}, "components": {}}))
    assert pipeline_spec(path) == {"root": {}, "components": {}}


@pytest.fixture
def certificate(tmp_path):
    """For 127.0.0.1, signed by nobody but itself: certificate and key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "host.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    return path


def test_a_host_whose_certificate_nobody_knows_is_refused_unless_the_authority_is_named(
    server, send, certificate, monkeypatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(UnreachableError, match=r"certificate verify failed.*SSL_CERT_FILE names a file"):
        send(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert send(url)[1].run_id == "run-1"
