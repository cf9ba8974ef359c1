"""`dvc repro` runs the whole pipeline, repeats nothing, and gives the numbers that Kubeflow's components give."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own beside the repository's code, with settings under which a stage takes seconds."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", folder)
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / ".dvcignore", folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["phantom"] |= {"patients": 60, "image_size": 32}
    params["data"]["image_size"] = 32
    params["train"] |= {"backbone": "resnet10t", "epochs": 1, "lr": 0.001, "precision": "float32", "threads": 1}
    params["compare"] |= {"losses": ["ce", "cdw_ce"], "seeds": [1], "resamples": 100}
    params["gate"] = [{"metric": "val_qwk", "threshold": -1.0}]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro")
    return folder


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def all_metrics(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(loss, seed) -> metrics, from every metrics.json with a report.json beside it."""
    found = {}
    for path in folder.rglob("metrics.json"):
        if (path.parent / "report.json").exists():
            about = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
            found[about["loss"], str(about["seed"])] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_stage_leaves_its_outputs(project: Path) -> None:
    for name in ("comparison/comparison.json", "comparison/comparison.html", "registered.json", "mlflow.db"):
        assert (project / name).exists(), name
    assert json.loads((project / "registered.json").read_text(encoding="utf-8"))["registered"] is True
    assert set(all_metrics(project / "reports")) == {("ce", "1"), ("cdw_ce", "1")}


def test_a_second_repro_does_nothing(project: Path) -> None:
    assert ran(run(project, "dvc", "repro")) == set()


def test_dvc_shows_metrics_and_plots(project: Path) -> None:
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert {f for f in files if f.endswith("metrics.json")} == {
        "reports/ce/1/metrics.json",
        "reports/cdw_ce/1/metrics.json",
    }
    assert "val_qwk" in files["reports/ce/1/metrics.json"]["data"]
    run(project, "dvc", "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert "history.csv" in page
    assert "confusion.csv" in page


def test_runs_lie_under_one_parent_with_the_identity_of_data_and_code(project: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raregrade")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    steps = {r.data.tags["raregrade.step"]: r for r in runs}
    assert set(steps) == {"pipeline", "prepare", "train", "evaluate", "compare", "register"}
    parents = {r.info.run_id for r in runs if r.data.tags["raregrade.step"] == "pipeline"}
    children = [r for r in runs if r.data.tags["raregrade.step"] != "pipeline"]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} <= parents
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    md5 = lock["stages"]["prepare"]["outs"][0]["md5"]
    assert steps["train"].data.tags["raregrade.dataset.dvc_md5"] == md5
    assert len(client.get_metric_history(steps["train"].info.run_id, "val_qwk")) == 1


def test_the_pipeline_gives_the_same_metrics(project: Path) -> None:
    run(
        project,
        "raregrade",
        "pipeline",
        "run",
        "compare_losses",
        "--set",
        "tracking.uri=sqlite:///kubeflow.db",
        "--root",
        "kubeflow",
    )
    by_pipeline, by_dvc = all_metrics(project / "kubeflow"), all_metrics(project / "reports")
    assert by_pipeline == by_dvc


def test_changing_one_loss_reruns_what_depends_on_it_and_nothing_else(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text(encoding="utf-8")
    params = yaml.safe_load(before)
    params["losses"]["cdw_ce"]["power"] = 3.0
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    try:
        planned = set(re.findall(r"'?(\w+@?[\w-]*)'?:", run(project, "dvc", "status")))
        assert {"train@cdw_ce-1", "train@ce-1"} & planned == {"train@cdw_ce-1"}
        again = ran(run(project, "dvc", "repro"))
    finally:
        path.write_text(before, encoding="utf-8")
    assert again == {"train@cdw_ce-1", "evaluate@cdw_ce-1", "compare", "register"}
    assert ran(run(project, "dvc", "repro")) <= {"compare", "register"}  # the run cache restores the rest
