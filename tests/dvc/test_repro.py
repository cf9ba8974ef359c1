"""`dvc repro` runs the whole pipeline, repeats nothing, and gives the numbers that Kubeflow's components give."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raregrade.config import load_params

ROOT = Path(__file__).resolve().parents[2]
REGISTER = "register/dvc.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


# Parameters file, losses to train, a gate that always opens. Each of the four published methods is in one of them.
FLAVOURS: dict[str, tuple[str, list[str], str]] = {
    "ordinal": ("params.yaml", ["ce", "cdw_ce"], "val_qwk"),
    "imbalanced": ("src/raregrade/presets/phantom/imbalanced.yaml", ["lmf", "two_stage"], "val_macro_f1"),
    "hierarchical": ("src/raregrade/presets/phantom/hierarchical.yaml", ["bce", "hbce"], "val_auroc"),
}


@pytest.fixture(scope="session")
def project_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A reproduced project of a flavour beside the repository's code; a stage of it takes seconds."""

    @cache
    def make(flavour: str) -> Path:
        file, losses, metric = FLAVOURS[flavour]
        folder = tmp_path_factory.mktemp(flavour)
        copy_stages(folder)
        for name in ("components", "pipelines"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        params = load_params(ROOT / file).to_dict()
        params["phantom"] |= {"patients": 60, "image_size": 32}
        params["data"]["image_size"] = 32
        params["train"] |= {"backbone": "resnet10t", "epochs": 2, "precision": "float32", "threads": 1}
        params["compare"] |= {"losses": losses, "seeds": [1], "baseline": losses[0]}
        params["gate"] = [{"metric": metric, "threshold": -1.0}]
        params["alarms"]["refuse"] = False  # after two epochs a model misses classes
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        run(folder, "git", "init", "--quiet")
        run(folder, "dvc", "init", "--quiet")
        run(folder, "dvc", "repro", REGISTER)
        return folder

    return make


@pytest.fixture
def project(project_of: Callable[[str], Path]) -> Path:
    return project_of("ordinal")


def copy_stages(folder: Path) -> None:
    """The files by which DVC knows the project."""
    for name in ("dvc.yaml", ".dvcignore", "data/raw/dvc.yaml", REGISTER, "plots/epochs.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


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


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_stage_leaves_its_outputs(project_of: Callable[[str], Path], flavour: str) -> None:
    project = project_of(flavour)
    for name in ("comparison/comparison.json", "comparison/comparison.html", "registered.json", "mlflow.db"):
        assert (project / name).exists(), name
    assert json.loads((project / "registered.json").read_text(encoding="utf-8"))["registered"] is True
    assert set(all_metrics(project / "reports")) == {(loss, "1") for loss in FLAVOURS[flavour][1]}


def test_a_second_repro_does_nothing(project: Path) -> None:
    assert ran(run(project, "dvc", "repro", REGISTER)) == set()


def test_dvc_shows_headline_metrics_of_each_loss(project: Path) -> None:
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json"))[""]["data"]
    assert list(shown) == ["comparison/metrics.json"]
    values = shown["comparison/metrics.json"]["data"]
    assert {loss: set(found) for loss, found in values.items()} == {
        loss: {"val_qwk", "test_qwk"} for loss in ("ce", "cdw_ce")
    }
    assert values["ce"]["val_qwk"] == all_metrics(project / "reports")["ce", "1"]["val_qwk"]


def test_dvc_plots_every_training_at_once_and_shows_figures(project: Path) -> None:
    run(project, "dvc", "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    (values,) = re.findall(r'"data": \{"values": (\[.*?\])\}', page)
    points = {(v["loss"], v["seed"], v["epoch"]): float(v["validation"]) for v in json.loads(values)}
    assert set(points) == {(loss, "1", epoch) for loss in ("ce", "cdw_ce") for epoch in ("1", "2")}
    history = pd.read_csv(project / "models" / "ce" / "1" / "history.csv")
    assert [points["ce", "1", epoch] for epoch in ("1", "2")] == pytest.approx(list(history["val_qwk"]))
    pictures = {src for src in re.findall(r'<img src="([^"]+)"', page) if (project / "dvc_plots" / src).is_file()}
    assert {p.removeprefix("static/workspace_") for p in pictures} >= {
        "reports_ce_1_figures_confusion.png",
        "comparison_figures_forest_test.png",
    }


def test_an_experiment_changes_what_depends_on_it_and_leaves_the_registry_alone(project: Path) -> None:
    run(project, "git", "add", "--all")
    run(project, "git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "first")
    before = (project / "registered.json").read_bytes()
    versions = registered(project)
    said = run(project, "dvc", "exp", "run", "-S", "gate=[]", "-S", "losses.cdw_ce.power=4.0")
    assert ran(said) == {"train@cdw_ce-1", "evaluate@cdw_ce-1", "compare"}
    assert (project / "registered.json").read_bytes() == before
    assert registered(project) == versions == 1
    run(project, "git", "checkout", "--quiet", "--", ".")
    run(project, "dvc", "checkout")


def registered(project: Path) -> int:
    """How many versions MLflow's registry holds."""
    from mlflow import MlflowClient

    return len(MlflowClient(f"sqlite:///{project / 'mlflow.db'}").search_model_versions())


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
    assert len(client.get_metric_history(steps["train"].info.run_id, "val_qwk")) == 2  # one an epoch


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_pipeline_gives_the_same_metrics(project_of: Callable[[str], Path], flavour: str) -> None:
    project = project_of(flavour)
    elsewhere = "tracking.uri=sqlite:///kubeflow.db"
    run(project, "raregrade", "pipeline", "run", "compare_losses", "--set", elsewhere, "--root", "kubeflow")
    assert all_metrics(project / "kubeflow") == all_metrics(project / "reports")


def test_changing_one_loss_reruns_what_depends_on_it_and_nothing_else(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text(encoding="utf-8")
    params = yaml.safe_load(before)
    params["losses"]["cdw_ce"]["power"] = 3.0
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    try:
        planned = set(re.findall(r"'?(\w+@?[\w-]*)'?:", run(project, "dvc", "status")))
        assert {"train@cdw_ce-1", "train@ce-1"} & planned == {"train@cdw_ce-1"}
        again = ran(run(project, "dvc", "repro", REGISTER))
    finally:
        path.write_text(before, encoding="utf-8")
    registering = f"{REGISTER}:register"
    assert again == {"train@cdw_ce-1", "evaluate@cdw_ce-1", "compare", registering}
    # The run cache restores the rest.
    assert ran(run(project, "dvc", "repro", REGISTER)) <= {"compare", registering}


def test_a_step_that_an_upgrade_marks_runs_again_and_no_other_before_it(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text(encoding="utf-8")
    run(project, "raregrade", "upgrade", "--rerun", "evaluate")
    try:
        assert ran(run(project, "dvc", "repro")) == {"evaluate@ce-1", "evaluate@cdw_ce-1"}  # with the same numbers
    finally:
        path.write_text(before, encoding="utf-8")
