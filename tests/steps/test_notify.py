"""``notify`` against a webhook that listens, and against MLflow's database."""

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from raregrade.steps import notify as notify_module
from raregrade.steps.notify import Outcome, notify
from raregrade.tracking import Tracking, start_step
from raregrade.tracking.connection import open_client

FAILED = Outcome("compare_losses", "run-7", "FAILED", "task train-model failed")
SUCCEEDED = Outcome("compare_losses", "run-7", "SUCCEEDED")


@pytest.fixture
def webhook(monkeypatch):
    """A server that keeps what it is sent and answers with ``answers`` in turn, then 204."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.received.append((self.headers, body))
            self.send_response(server.answers.pop(0) if server.answers else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("RAREGRADE_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/hook/s3cret")
    monkeypatch.setattr(notify_module, "_PAUSE_SECONDS", 0.01)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_is_told_in_words_and_in_fields(webhook, no_tracking):
    result = notify(FAILED, tracking=no_tracking)
    ((headers, body),) = webhook.received
    assert json.loads(body) == {
        "text": "compare_losses failed: task train-model failed",
        "pipeline": "compare_losses",
        "run": "run-7",
        "state": "FAILED",
        "error": "task train-model failed",
        "experiment": "steps",
        "mlflow_run_id": "",
    }
    assert headers["Content-Type"] == "application/json"
    assert "X-Raregrade-Signature" not in headers
    assert result["delivered"] is True


def test_with_a_secret_the_body_is_signed(webhook, no_tracking, monkeypatch):
    monkeypatch.setenv("RAREGRADE_WEBHOOK_SECRET", "key")
    notify(SUCCEEDED, tracking=no_tracking)
    ((headers, body),) = webhook.received
    assert headers["X-Raregrade-Signature"] == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()


def test_a_server_that_is_overloaded_is_asked_again(webhook, no_tracking):
    webhook.answers = [503, 429]
    assert notify(SUCCEEDED, tracking=no_tracking)["delivered"] is True
    assert len(webhook.received) == 3


@pytest.mark.parametrize(("answers", "asked"), [([500] * 5, 3), ([403], 1)])
def test_a_report_that_does_not_arrive_warns_without_the_address(webhook, no_tracking, caplog, answers, asked):
    webhook.answers = list(answers)
    assert notify(FAILED, tracking=no_tracking)["delivered"] is False
    assert len(webhook.received) == asked
    assert f"HTTP {answers[0]}" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/hook", "file:///etc/passwd", "nonsense"])
def test_an_address_where_nobody_listens_does_not_fail_the_run(no_tracking, monkeypatch, caplog, url):
    monkeypatch.setattr(notify_module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("RAREGRADE_WEBHOOK_URL", url)
    assert notify(FAILED, tracking=no_tracking)["delivered"] is False
    assert "RAREGRADE_WEBHOOK_URL" in caplog.text


def test_without_a_webhook_nobody_is_told(no_tracking, monkeypatch):
    monkeypatch.delenv("RAREGRADE_WEBHOOK_URL", raising=False)
    assert notify(SUCCEEDED, tracking=no_tracking) == {
        "sentence": "compare_losses succeeded",
        "mlflow_run_id": None,
        "delivered": None,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    open_client(uri)
    return uri


@pytest.mark.slow
def test_the_parent_run_fails_with_the_pipeline(store):
    """A task that ends before it opens its run leaves no trace in MLflow."""
    tracking = Tracking(store, "exit", group="run-7")
    with start_step(tracking, "prepare", name="prepare"):
        pass
    result = notify(FAILED, tracking=tracking)
    parent = open_client(store).get_run(result["mlflow_run_id"])
    assert parent.info.status == "FAILED"
    assert parent.data.tags["raregrade.pipeline.state"] == "FAILED"
    assert parent.data.tags["raregrade.pipeline.error"] == "task train-model failed"
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**compare_losses failed: task train-model failed**\n\n")
    assert "One pipeline of raregrade" in note


@pytest.mark.slow
def test_a_success_ends_the_parent_as_finished(store):
    tracking = Tracking(store, "exit", group="run-8")
    with start_step(tracking, "prepare", name="prepare"):
        pass
    parent = open_client(store).get_run(notify(SUCCEEDED, tracking=tracking)["mlflow_run_id"])
    assert (parent.info.status, parent.data.tags["raregrade.pipeline.state"]) == ("FINISHED", "SUCCEEDED")
    assert "raregrade.pipeline.error" not in parent.data.tags


@pytest.mark.slow
def test_a_run_that_logged_nothing_has_nothing_to_tag(store):
    assert notify(FAILED, tracking=Tracking(store, "exit", group="run-9"))["mlflow_run_id"] is None


@pytest.mark.parametrize(
    ("said", "state", "sentence"),
    [
        # Recorded from a backend 2.17.0: after a success, and when a run was terminated while it trained.
        ("COMPLETE", "SUCCEEDED", "compare_losses succeeded"),
        (
            "RUNNING",
            "UNFINISHED",
            "compare_losses did not finish, its state is RUNNING: it was terminated, or a task could not start",
        ),
        # What kfp documents and says on one machine, and what Argo says.
        ("SUCCEEDED", "SUCCEEDED", "compare_losses succeeded"),
        ("Succeeded", "SUCCEEDED", "compare_losses succeeded"),
        ("COMPLETED", "SUCCEEDED", "compare_losses succeeded"),
        ("CACHED", "SUCCEEDED", "compare_losses succeeded"),
        ("FAILED", "FAILED", "compare_losses failed"),
        ("Error", "FAILED", "compare_losses failed"),
        ("CANCELLED", "CANCELLED", "compare_losses was cancelled"),
        ("CANCELED", "CANCELLED", "compare_losses was cancelled"),
        ("SKIPPED", "SKIPPED", "compare_losses ended as SKIPPED"),
        ("", "UNKNOWN", "compare_losses ended as UNKNOWN"),
    ],
)
def test_the_words_of_every_backend_are_understood(said, state, sentence):
    outcome = Outcome("compare_losses", "run-7", said)
    assert (outcome.state, outcome.sentence) == (state, sentence)


@pytest.mark.parametrize(("said", "succeeded"), [("COMPLETE", True), ("RUNNING", False), ("SKIPPED", False)])
def test_only_a_success_ends_the_parent_run_as_finished(monkeypatch, no_tracking, said, succeeded):
    told = []
    monkeypatch.setattr("raregrade.tracking.outcome.report_outcome", lambda *_, **words: told.append(words))
    notify(Outcome("compare_losses", "run-7", said), tracking=no_tracking)
    assert [words["succeeded"] for words in told] == [succeeded]


def test_an_mlflow_that_is_gone_does_not_keep_the_webhook_from_being_told(webhook, caplog):
    result = notify(FAILED, tracking=Tracking("http://127.0.0.1:1", "exit", group="run-7"))
    assert result["delivered"] is True
    assert "MLflow was not told" in caplog.text
