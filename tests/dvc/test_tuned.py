"""`dvc repro` with tuned losses: what tuning chose is trained, judged and compared, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raregrade.config import load_params

from .test_repro import ROOT, copy_stages, ran, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the tuned cross-entropy beside the plain one, reproduced as far as the comparison."""
    folder = tmp_path_factory.mktemp("tuned")
    copy_stages(folder)
    params = load_params(ROOT / "params.yaml").to_dict()
    params["phantom"] |= {"patients": 60, "image_size": 16}
    params["data"]["image_size"] = 16
    params["train"] |= {"backbone": "test_resnet", "epochs": 2, "precision": "float32", "threads": 1}
    params["compare"] |= {"losses": ["ce"], "seeds": [1], "baseline": "ce-tuned"}
    params["tune"] |= {"losses": ["ce"], "trials": 2, "repeats": 1, "confirm": 2, "pruner": "none"}
    params["tracking"]["uri"] = "none"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro")
    return folder


def test_a_tuned_loss_is_trained_judged_and_compared(project: Path) -> None:
    best = yaml.safe_load((project / "tuned" / "ce" / "best.yaml").read_text())
    assert len(pd.read_csv(project / "tuned" / "ce" / "trials.csv")) == 2 + 2 * 2
    assert yaml.safe_load((project / "tuned" / "ce" / "baseline.yaml").read_text()) == best
    card = json.loads((project / "models" / "ce-tuned" / "1" / "model.json").read_text())
    assert card["loss"] == {"name": "ce-tuned", "kind": "ce", "params": best["params"]}
    assert all(card["train"][name] == value for name, value in best["train"].items())
    comparison = json.loads((project / "comparison" / "comparison.json").read_text())
    assert set(comparison["losses"]) == {"ce", "ce-tuned"}
    assert comparison["baseline"] == "ce-tuned"
    study = {
        "study": best["study"]["name"],
        "chosen": best["chosen"],
        "better": best["better"],
        "trials": 2,
        "seen": "val",
    }
    report = json.loads((project / "reports" / "ce-tuned" / "1" / "report.json").read_text())
    assert card["tuned"] == report["tuned"] == comparison["losses"]["ce-tuned"]["tuned"] == study
    assert json.loads((project / "models" / "ce" / "1" / "model.json").read_text())["tuned"] is None


def test_unchanged_inputs_rerun_nothing(project: Path) -> None:
    assert ran(run(project, "dvc", "repro")) == set()


def test_how_the_work_is_carried_out_reruns_nothing(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text(encoding="utf-8")
    params = yaml.safe_load(before)
    params["tune"] |= {"workers": 2, "heartbeat": 30, "storage": "elsewhere.log"}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    try:
        assert ran(run(project, "dvc", "repro")) == set()
    finally:
        path.write_text(before, encoding="utf-8")


def test_more_trials_rerun_the_study_and_nothing_it_leaves_as_it_was(project: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    params = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))
    params["tune"]["trials"] = 3
    (copy / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    again = ran(run(copy, "dvc", "repro"))
    assert "tune@ce" in again
    assert not again & {"prepare", "train@ce-1", "evaluate@ce-1"}
    # The two trials of before were not trained again: the study went on.
    table = pd.read_csv(copy / "tuned" / "ce" / "trials.csv")
    assert (table["role"] == "search").sum() == 3
