"""``raregrade pipeline run compare_losses`` as a user runs it, against the same steps called one by one."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raregrade.config import load_params, section
from raregrade.steps.compare import compare
from raregrade.steps.evaluate import evaluate
from raregrade.steps.phantom import phantom
from raregrade.steps.prepare import prepare
from raregrade.steps.register import register
from raregrade.steps.train import train
from raregrade.tracking import Tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from raregrade.cli.main import main; sys.exit(main())"
NO_TRACKING = Tracking("none", "direct")


def pipeline_run(folder, *options):
    command = [sys.executable, "-c", COMMAND, "pipeline", "run", "compare_losses", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def working_folder(folder, raw_params):
    raw_params["compare"]["seeds"] = [1]
    raw_params["tracking"]["uri"] = "sqlite:///mlflow.db"
    (folder / "params.yaml").write_text(yaml.safe_dump(raw_params))
    return load_params(folder / "params.yaml")


def call_steps(folder, params, raw):
    """The steps one by one, in this process and in ``folder``; returns what the gate decided."""
    folder.mkdir()
    data, comparison = folder / "data", folder / "comparison"
    prepared = section(params, "prepare")
    prepare(
        prepared.model_copy(update={"data": prepared.data.model_copy(update={"path": str(raw)})}),
        data,
        tracking=NO_TRACKING,
    )
    models, reports = [], []
    for loss in params.compare.losses:
        model, report = folder / "models" / loss, folder / "reports" / loss
        train(section(params, "train", loss), data, model, seed=1, tracking=NO_TRACKING, checkpoints=None)
        evaluate(section(params, "evaluate"), model, data, report, tracking=NO_TRACKING)
        models.append(model)
        reports.append(report)
    compare(section(params, "compare"), reports, comparison, tracking=NO_TRACKING)
    with contextlib.chdir(folder):
        here = Tracking("sqlite:///mlflow.db", "direct")
        return register(
            section(params, "register"), comparison, models, data, folder / "registered.json", tracking=here
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory, tiny):
    """One run of the pipeline, and the outputs of the same steps called directly."""
    folder = tmp_path_factory.mktemp("run")
    params = working_folder(folder, tiny)
    raw = folder / params.data.path
    phantom(section(params, "phantom"), raw)
    done = pipeline_run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    registration = call_steps(folder / "direct", params, raw)
    (outputs,) = (folder / ".raregrade" / "pipelines" / "compare_losses").glob("compare-losses-*")
    return folder, outputs, folder / "direct", registration, done.stdout


def iterations(outputs, params_losses=("ce", "cdw_ce")):
    return {loss: outputs / f"for-loop-2-iteration-{i}" for i, loss in enumerate(params_losses)}


@pytest.mark.parametrize("loss", ["ce", "cdw_ce"])
def test_the_metrics_are_those_of_the_steps_called_directly(both, loss):
    _, outputs, direct, *_ = both
    of_pipeline = (iterations(outputs)[loss] / "evaluate-model" / "report" / "metrics.json").read_bytes()
    assert of_pipeline == (direct / "reports" / loss / "metrics.json").read_bytes()


@pytest.mark.parametrize("loss", ["ce", "cdw_ce"])
def test_the_weights_are_those_of_the_steps_called_directly(both, loss):
    _, outputs, direct, *_ = both
    of_pipeline = (iterations(outputs)[loss] / "train-model" / "model" / "weights.safetensors").read_bytes()
    assert of_pipeline == (direct / "models" / loss / "weights.safetensors").read_bytes()


def test_the_comparison_is_the_same(both):
    _, outputs, direct, *_ = both
    of_pipeline = json.loads((outputs / "compare-models" / "comparison" / "comparison.json").read_text())
    of_steps = json.loads((direct / "comparison" / "comparison.json").read_text())
    for key in ("winner", "baseline", "losses", "selection_metric", "label_space"):
        assert of_pipeline[key] == of_steps[key]


def test_the_gate_decides_the_same(both):
    _, outputs, _, registration, stdout = both
    of_pipeline = json.loads((outputs / "register-model" / "registration" / "registered.json").read_text())
    keys = ("registered", "name", "loss", "seed", "reasons", "metrics")
    assert {k: of_pipeline[k] for k in keys} == {k: registration[k] for k in keys}
    assert registration["registered"]
    assert f"registered: phantom-severity version {of_pipeline['version']}" in stdout


def test_every_task_has_its_run_under_one_parent_in_mlflow(both):
    from mlflow import MlflowClient

    folder, *_ = both
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("pipelines")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r is not parent]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    assert sorted(r.data.tags["raregrade.step"] for r in children) == [
        "compare", "evaluate", "evaluate", "fetch", "prepare", "register", "train", "train",
    ]  # fmt: skip
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert client.get_model_version("phantom-severity", "1").run_id in {r.info.run_id for r in children}


def test_it_ends_with_the_table_and_where_things_lie(both):
    folder, outputs, *_, stdout = both
    tail = stdout[stdout.index("register-model: done") :]
    assert "cdw_ce" in tail
    assert "val QWK" in tail
    lines = dict(line.split(": ", 1) for line in tail.splitlines() if line.startswith(("report: ", "outputs ")))
    assert (folder / lines["report"]).read_text().lstrip().lower().startswith("<!doctype html")
    assert folder / lines["outputs and logs of all tasks"] == outputs


def test_a_broken_image_fails_the_run_with_task_file_and_log(tmp_path, tiny):
    params = working_folder(tmp_path, tiny)
    raw = tmp_path / params.data.path
    phantom(section(params, "phantom"), raw)
    broken = sorted((raw / "images").glob("*.png"))[3]
    broken.write_bytes(b"not an image")
    done = pipeline_run(tmp_path, "--set", "tracking.uri=none")
    assert done.returncode == 1
    assert "task prepare-dataset failed" in done.stderr
    assert broken.name in done.stderr
    assert "raregrade.errors" not in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    log = Path(done.stderr.split("Its log: ")[1].strip())
    assert "Traceback" in log.read_text()
    assert "train-model" not in done.stdout
