"""Training over several nodes: the Kubernetes API on a real socket, and once the processes of the job itself."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from raregrade.config import (  # noqa: E402 - found through the line above
    DataConfig,
    LossChoice,
    PhantomConfig,
    TrainConfig,
    TrainSection,
    load_params,
    section,
)
from raregrade.data.manifest import PreparedDataset  # noqa: E402
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom  # noqa: E402
from raregrade.data.prepare import prepare_dataset  # noqa: E402
from raregrade.errors import InterruptedRunError, RaregradeError, UserError  # noqa: E402
from raregrade.losses import LOSSES  # noqa: E402
from raregrade.steps.train_distributed import params_of_training, train_distributed  # noqa: E402
from raregrade.steps.trainjobs import ClusterUnavailableError, TrainJobs  # noqa: E402
from raregrade.tracking import Tracking  # noqa: E402
from tests.kubernetes_server import GROUP, kubernetes_server, write_account  # noqa: E402

TRAINER = {"image": "r.example/raregrade:1", "numNodes": 2, "command": ["torchrun", "-m", "raregrade"]}
JOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": "to-be-named"},
    "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": TRAINER},
}
NONE = Tracking(uri="none", experiment="x")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    draw_phantom(PhantomConfig(patients=30, image_size=32), 7, root / "raw")
    classes = list(PHANTOM_LABELS["ordinal"].classes)
    config = DataConfig(source="phantom", path=str(root / "raw"), task="ordinal", classes=classes, image_size=32)
    prepare_dataset(config, 7, root / "prepared")
    return root / "prepared"


def of(kind="cdw_ce", **train):
    settings = {"backbone": "test_convnext", "epochs": 2, "batch_size": 16, "precision": "float32", "threads": 1}
    loss = LossChoice(name=kind, kind=kind, params=LOSSES[kind]())
    return TrainSection(train=TrainConfig(**settings | train), loss=loss)


@pytest.fixture
def server():
    with kubernetes_server() as api:
        yield api


@pytest.fixture
def cluster(server, tmp_path):
    return TrainJobs(server.url, "team", write_account(tmp_path / "account"))


@pytest.fixture
def start(cluster, data, tmp_path):
    """The step; what it reports is in ``start.said``."""

    def start(asked=None, **options):
        return train_distributed(
            asked or of(),
            data,
            tmp_path / "model",
            seed=3,
            job=json.dumps(JOB),
            shared=tmp_path / "shared",
            tracking=options.pop("tracking", NONE),
            cluster=options.pop("cluster", cluster),
            poll_seconds=0.02,
            report=start.said.append,
            **options,
        )

    start.said = []
    return start


def option(job, name):
    arguments = job["spec"]["trainer"]["args"]
    return arguments[arguments.index(name) + 1]


def nodes_that_train(server):
    """Let each job leave a model where it was told to, and end well."""

    def train(job):
        model = Path(option(job, "--out"))
        model.mkdir(parents=True)
        (model / "model.json").write_text(json.dumps({"loss": option(job, "--loss")}))
        server.end_job(job["metadata"]["name"], "Complete", "all nodes succeeded")

    server.on_create = train


def seen_job(server):
    """The job as it arrived, kept although it is deleted later."""
    kept = {}
    before = server.on_create

    def keep(job):
        kept.update(json.loads(json.dumps(job)))
        before(job)

    server.on_create = keep
    return kept


def test_the_model_of_the_job_is_handed_over_and_nothing_is_left(server, start, tmp_path):
    nodes_that_train(server)
    assert start() == {"loss": "cdw_ce"}
    assert json.loads((tmp_path / "model" / "model.json").read_text()) == {"loss": "cdw_ce"}
    assert (server.jobs, len(server.deleted)) == ({}, 1)
    assert list((tmp_path / "shared" / "jobs").iterdir()) == []
    assert "started: 2 nodes" in start.said[0]
    assert "Complete, all nodes succeeded" in start.said[-1]


def test_the_job_trains_what_was_asked_for_and_knows_the_run_it_belongs_to(server, start, tmp_path):
    nodes_that_train(server)
    job = seen_job(server)
    start(fold=2, tracking=Tracking(uri="none", experiment="x", group="run-7"))
    assert job["metadata"]["name"].startswith("train-cdw-ce-3-")
    assert job["spec"]["trainer"]["args"][0] == "train"
    asked = {name: option(job, f"--{name}") for name in ("loss", "seed", "fold", "checkpoints")}
    assert asked == {"loss": "cdw_ce", "seed": "3", "fold": "2", "checkpoints": str(tmp_path / "shared")}
    assert {"name": "RAREGRADE_GROUP", "value": "run-7"} in job["spec"]["trainer"]["env"]


def test_two_tries_are_two_jobs(server, start):
    nodes_that_train(server)
    start()
    start()
    assert len(set(server.deleted)) == 2


@pytest.mark.parametrize("kind", ["ce", "cdw_ce", "lmf", "two_stage"])
def test_the_parameters_that_the_nodes_read_are_those_of_the_section(data, tmp_path, kind):
    asked = of(kind, lr=3e-4, epochs=20, early_stopping=5)
    written = params_of_training(asked, PreparedDataset.open(data), tmp_path, seed=3, tracking=NONE)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(written))
    assert section(load_params(tmp_path / "params.yaml"), "train", kind) == asked


def test_a_job_that_fails_is_left_for_its_logs(server, start, tmp_path):
    server.on_create = lambda job: server.end_job(job["metadata"]["name"], "Failed", "node-0 ended with 1")
    with pytest.raises(
        RaregradeError, match=r"failed: node-0 ended with 1\. .*kubectl logs -n team -l jobset"
    ) as caught:
        start()
    assert caught.value.exit_code == 1
    assert (len(server.jobs), server.deleted) == (1, [])
    assert not (tmp_path / "model").exists()


def test_a_job_that_left_no_model_is_a_failure(server, start, tmp_path):
    server.on_create = lambda job: server.end_job(job["metadata"]["name"], "Complete")
    with pytest.raises(RaregradeError, match="ended well but left no model"):
        start()
    assert not (tmp_path / "model").exists()


def test_a_cluster_that_is_away_for_a_while_is_asked_again(server, start):
    nodes_that_train(server)
    server.failing["GET"] = [500, 0, 429]
    assert start() == {"loss": "cdw_ce"}
    assert sum("asking again" in line for line in start.said) == 3


def test_a_cluster_away_at_the_start_is_worth_another_try(server, start):
    server.failing["POST"] = [503]
    with pytest.raises(ClusterUnavailableError, match="failed with 503"):
        start()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, r"may not POST train jobs .*infra/kubernetes/components/train-jobs"),
        (404, r"knows no train jobs .*Install Kubeflow Trainer"),
        (422, r"refuses the train job"),
    ],
)
def test_a_job_that_is_refused(server, start, status, sentence):
    server.failing["POST"] = [status]
    with pytest.raises(UserError, match=sentence):
        start()


def test_a_job_that_somebody_deletes_is_not_waited_for(server, start):
    server.on_create = lambda job: server.jobs.clear()
    with pytest.raises(UserError, match="not found"):
        start()


def test_a_job_of_the_wrong_form_is_refused_by_the_server(server, start, monkeypatch):
    monkeypatch.setitem(TRAINER, "numNode", 2)
    with pytest.raises(UserError, match=r"unknown fields: \['\.spec\.trainer\.numNode'\]"):
        start()


def test_an_interrupt_deletes_the_job(server, start):
    def interrupt(job):
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()

    server.on_create = interrupt
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match="was deleted, and the next try goes on") as caught:
        start()
    assert caught.value.exit_code == 75
    assert (server.jobs, len(server.deleted)) == ({}, 1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_a_cluster_it_says_what_to_do_instead(start, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match=r"does not run in one\. Submit the pipeline, or .*pipeline trainjob"):
        start(cluster=None)


@pytest.mark.parametrize(
    ("host", "url"), [("10.0.0.1", "https://10.0.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")]
)
def test_inside_a_cluster_the_account_of_the_pod_is_used(tmp_path, monkeypatch, host, url):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    account = write_account(tmp_path / "account", namespace="raregrade-prod")
    assert TrainJobs.in_cluster(account) == TrainJobs(url, "raregrade-prod", account)


def test_the_requests_are_those_of_the_kubernetes_api(server, start):
    nodes_that_train(server)
    start()
    name = server.deleted[0]
    path = f"{GROUP}/namespaces/team/trainjobs"
    assert server.asked == [f"POST {path}", f"GET {path}/{name}", f"DELETE {path}/{name}"]


def test_tuned_parameters_reach_the_nodes_under_the_name_of_the_tuned_loss(server, start, tmp_path):
    best = {"schema": 2, "kind": "cdw_ce", "params": {"power": 3.0}, "chosen": "tuned", "better": True}
    best["study"] = {"name": "cdw_ce-1", "trials": 4}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(best))
    nodes_that_train(server)
    train, read = server.on_create, {}

    def look(job):
        read.update(yaml.safe_load(Path(option(job, "--params")).read_text())["losses"])
        train(job)

    server.on_create = look
    tuned = {"study": "cdw_ce-1", "chosen": "tuned", "better": True, "trials": 4, "seen": "val"}
    assert start(loss_params=tmp_path / "best.yaml") == {"loss": "cdw_ce-tuned", "tuned": tuned}
    assert json.loads((tmp_path / "model" / "model.json").read_text())["tuned"] == tuned
    assert read["cdw_ce-tuned"]["power"] == 3.0


@pytest.mark.slow
def test_the_job_as_it_is_trains_in_two_processes(server, start, data, tmp_path):
    """Its command is started as a cluster would, but on this machine."""

    def train(job):
        trainer = job["spec"]["trainer"]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command = [*launcher, *trainer["command"][1:], *trainer["args"]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        server.end_job(job["metadata"]["name"], "Complete" if done.returncode == 0 else "Failed", done.stderr[-500:])

    server.on_create = lambda job: threading.Thread(target=train, args=(job,)).start()
    card = start(of("ce", epochs=1))
    assert (card["loss"]["name"], card["seed"]) == ("ce", 3)
    assert card["dataset"]["content_hash"] == PreparedDataset.open(data).content_hash
    assert (tmp_path / "model" / "weights.safetensors").is_file()
