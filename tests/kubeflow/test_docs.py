"""Every command in docs/clusters.md, run as it stands there against a host that speaks as Kubeflow does."""

import shlex
from pathlib import Path

import kfp_server_api
import pytest

from raregrade.cli.main import run
from raregrade.kubeflow.environments import Environment
from tests.kubeflow.contract_server import TOKEN, kubeflow_server, task_detail

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "clusters.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    raregrade pipeline ")]


@pytest.fixture
def server(workplace, monkeypatch):
    """A host at the address of the environments, and nothing of the caller's own."""
    (workplace / "token").write_text(TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(workplace / "token"))
    monkeypatch.setenv("KUBECONFIG", str(workplace / "none"))
    monkeypatch.setenv("RAREGRADE_GIT_COMMIT", "4f2a")
    original = Environment.model_validate
    with kubeflow_server(namespace="raregrade-dev") as host:
        monkeypatch.setattr(Environment, "model_validate", lambda raw: original({**raw, "host": host.url}))
        host.run_states = ["SUCCEEDED"]
        yield host


def test_the_page_has_commands():
    assert {shlex.split(command)[2] for command in COMMANDS} == {
        "compile", "submit", "list", "status", "logs", "schedule", "trainjob",
    }  # fmt: skip


@pytest.mark.slow
def test_every_command_of_the_page_works_in_the_order_of_the_page(server, capsys):
    for command in COMMANDS:
        arguments = shlex.split(command)[1:]
        if arguments[1] in ("status", "logs"):
            arguments[2] = server.state.runs[0].run_id
            task = task_detail("train-model", "SUCCEEDED", pods=("pod-1",))
            server.state.runs[0].run_details = kfp_server_api.V2beta1RunDetails(task_details=[task])
            server.state.logs["pod-1"] = "epoch 1\n"
        assert run(arguments) == 0, (command, capsys.readouterr())
