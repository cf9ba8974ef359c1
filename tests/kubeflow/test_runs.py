"""``raregrade pipeline list|status|logs`` and ``submit --wait``, with Kubeflow and the cluster on real sockets."""

import os
import signal
from datetime import UTC, datetime, timedelta

import kfp_server_api as kfp
import pytest

from raregrade.cli.main import run
from tests.kubeflow.contract_server import TOKEN, Trouble, kubeflow_server, task_detail
from tests.kubernetes_server import kubernetes_server, pod, write_kubeconfig

NOT_THERE = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.example/raregrade:1"'}


@pytest.fixture
def server():
    with kubeflow_server() as host:
        host.run_states = ["RUNNING"]
        yield host


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    """Whatever cluster the caller of the tests may have."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))


@pytest.fixture
def cluster(_no_account, tmp_path, monkeypatch):
    """A cluster to which this machine has an account."""
    with kubernetes_server() as api:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(api, tmp_path / "kubeconfig")))
        yield api


@pytest.fixture
def call(server, workplace):
    """A command about runs, told where the host is."""
    (workplace / "token").write_text(TOKEN)

    def call(command, *arguments):
        told = ["--host", server.url, "--namespace", "team", "--token-file", "token", "--timeout", "5"]
        return run(["pipeline", command, *arguments, *told])

    return call


def add_run(server, number=1, *, tasks=(), state="RUNNING", age=timedelta(minutes=90)):
    created = datetime.now(UTC) - age
    server.state.runs.append(
        kfp.V2beta1Run(
            run_id=f"run-{number}",
            display_name=f"compare_losses {number}",
            state=state,
            created_at=created,
            run_details=kfp.V2beta1RunDetails(task_details=list(tasks)) if tasks else None,
        )
    )


def kubeflows_view():
    """The tasks of a run as a host lists them: drivers, loops and executors among them."""
    return [
        task_detail("root", "RUNNING", minutes=9),
        task_detail("executor", "SUCCEEDED", minutes=8),
        task_detail("for-loop-1", "RUNNING", minutes=6),
        task_detail("iteration-0", "RUNNING", minutes=6),
        task_detail("train-model-driver", "SUCCEEDED", minutes=6),
        task_detail("train-model", "RUNNING", pods=("cl-x-2",), minutes=5),
        task_detail("prepare-dataset", "SUCCEEDED", pods=("cl-x-1",), minutes=8),
    ]


def test_status_shows_the_tasks_in_order_and_nothing_of_kubeflows_own(server, call, capsys):
    add_run(server, tasks=kubeflows_view())
    assert call("status", "run-1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compare_losses 1: RUNNING, 1 h 30 min"
    assert lines[1] == f"{server.url}/#/runs/details/run-1"
    assert [line.split()[:2] for line in lines[3:]] == [["prepare-dataset", "SUCCEEDED"], ["train-model", "RUNNING"]]
    assert " 5 min " in lines[4]


def test_a_run_is_named_by_the_address_of_its_page_too(server, call, capsys):
    add_run(server)
    assert call("status", f"{server.url}/#/runs/details/run-1") == 0
    assert capsys.readouterr().out.startswith("compare_losses 1: RUNNING")


def test_status_says_why_a_run_failed(server, call, capsys):
    add_run(server)
    server.run_states = ["FAILED"]
    server.state.runs[0].error = kfp.GoogleRpcStatus(code=2, message="train-model exceeded its deadline")
    assert call("status", "run-1") == 0
    assert "FAILED: train-model exceeded its deadline" in capsys.readouterr().out


def test_a_run_that_is_not_there_is_refused_with_where_to_look(call, capsys):
    assert call("status", "run-7") == 2
    assert "knows no run run-7. `raregrade pipeline list` shows which there are" in capsys.readouterr().err


def test_what_is_no_run_is_refused(call, capsys):
    assert call("status", "?") == 2
    assert "'?' is no run" in capsys.readouterr().err


def test_runs_are_listed_newest_first(server, call, capsys):
    for number in range(1, 4):
        add_run(server, number, age=timedelta(hours=4 - number))
    assert call("list", "--limit", "2") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["run", "run-3", "run-2"]


def test_status_shows_what_kubeflow_does_not_that_an_image_is_not_there(server, cluster, call, capsys):
    add_run(server, tasks=[task_detail("prepare-dataset", "RUNNING", pods=("cl-x-1",))])
    cluster.pods.append(pod("cl-x-impl-1", "cl-x.root.prepare-dataset.executor(0)", waiting=NOT_THERE))
    assert call("status", "run-1") == 0
    out = capsys.readouterr().out
    assert "the cluster cannot get an image: prepare-dataset: ImagePullBackOff for registry.example/raregrade:1" in out


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_waiting_ends_where_the_image_cannot_be_pulled(server, cluster, call, capsys, reason):
    """Kubeflow shows such a run as one that goes on, for ever."""
    cluster.pods.append(pod("p", "cl-x.root.prepare-dataset.executor", waiting={"reason": reason, "message": "no"}))
    assert call("submit", "compare_losses", "--raw-data", "/mnt/raw", "--wait") == 2
    shown = capsys.readouterr()
    assert f"{server.url}/#/runs/details/run-1" in shown.out
    assert f"cannot get an image: prepare-dataset: {reason} for registry.example/raregrade:1 (no)" in shown.err
    assert "Kubeflow goes on waiting for it: end run run-1 in the UI" in shown.err


def test_waiting_does_not_need_an_account_on_the_cluster(server, call, capsys):
    server.run_states = ["SUCCEEDED"]
    assert call("submit", "compare_losses", "--raw-data", "/mnt/raw", "--wait") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run run-1: SUCCEEDED"


def test_an_interrupt_of_the_waiting_does_not_advise_to_submit_again(server, call, capsys):
    """The general answer to an interrupt is to run the same command again, which would start a second run."""

    def interrupt(handler, method, rest, query, raw):
        if method == "GET" and rest:
            os.kill(os.getpid(), signal.SIGINT)
        return original(handler, method, rest, query, raw)

    original = server.RequestHandlerClass._runs
    server.RequestHandlerClass = type("Interrupting", (server.RequestHandlerClass,), {"_runs": interrupt})
    assert call("submit", "compare_losses", "--raw-data", "/mnt/raw", "--wait") == 1
    assert "run run-1 goes on. `raregrade pipeline status run-1` shows" in capsys.readouterr().err


@pytest.fixture
def with_logs(server, cluster):
    """A run with two attempts at a training, whose pods the cluster still has."""
    add_run(server, tasks=kubeflows_view())
    for name, node in (
        ("cl-x-driver-0", "cl-x.root.prepare-dataset-driver"),
        ("cl-x-impl-1", "cl-x.root.prepare-dataset.executor"),
        ("cl-x-impl-2", "cl-x.root.for-loop-1.iteration-0.train-model.executor(0)"),
        ("cl-x-impl-3", "cl-x.root.for-loop-1.iteration-0.train-model.executor(1)"),
    ):
        cluster.pods.append(pod(name, node))
        cluster.logs[name] = f"log of {name}\n"
    cluster.pods.append(pod("foreign", "other.root.prepare-dataset.executor", run="run-2"))
    return cluster


def test_logs_are_those_of_the_tasks_and_all_their_attempts(with_logs, call, capsys):
    assert call("logs", "run-1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "== prepare-dataset (cl-x-impl-1)",
        "log of cl-x-impl-1",
        "== train-model (cl-x-impl-2)",
        "log of cl-x-impl-2",
        "== train-model (cl-x-impl-3)",
        "log of cl-x-impl-3",
    ]


def test_logs_of_one_task(with_logs, call, capsys):
    assert call("logs", "run-1", "--task", "prepare-dataset") == 0
    assert capsys.readouterr().out.splitlines() == ["== prepare-dataset (cl-x-impl-1)", "log of cl-x-impl-1"]


def test_logs_of_a_task_that_is_not_there_name_those_that_are(with_logs, call, capsys):
    assert call("logs", "run-1", "--task", "train") == 2
    assert "has no task 'train'; it has prepare-dataset, train-model" in capsys.readouterr().err


def test_without_an_account_logs_come_through_the_ui(server, call, capsys):
    add_run(server, tasks=kubeflows_view())
    server.state.logs = {"cl-x-1": "prepared\n"}
    assert call("logs", "run-1") == 0
    assert capsys.readouterr().out == "== prepare-dataset (cl-x-1)\nprepared\n"
    asked = next(request for request in server.requests if request.path == "/k8s/pod/logs")
    assert (asked.query["podnamespace"], asked.query["runid"]) == ("team", "run-1")
    assert asked.authorization == f"Bearer {TOKEN}"


@pytest.mark.parametrize("trouble", [Trouble(404), Trouble(drop=True), Trouble(html="<html>")])
def test_where_logs_cannot_be_had_the_command_that_shows_them_is_named(server, call, capsys, trouble):
    add_run(server, tasks=kubeflows_view())
    server.troubles["GET /k8s/pod/logs"] = trouble
    assert call("logs", "run-1") == 1
    assert "try `kubectl logs -n team -l pipeline/runid=run-1 -c main --prefix --tail=-1`" in capsys.readouterr().err


def test_an_account_that_may_not_look_at_pods_is_as_good_as_none(server, cluster, call, capsys, tmp_path):
    add_run(server, tasks=kubeflows_view())
    write_kubeconfig(cluster, tmp_path / "kubeconfig", token="unknown")
    assert call("status", "run-1") == 0
    assert call("logs", "run-1") == 1
    assert "no logs could be had" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_stops_nobody(server, cluster, call):
    add_run(server)
    cluster.failing["GET"] = [0, 500]
    assert call("status", "run-1") == 0
    assert call("status", "run-1") == 0
    assert cluster.failing["GET"] == []
