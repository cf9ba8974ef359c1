"""register, promote, rollback, models and predict, as processes on a real registry."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
REGISTER = ("register", "--comparison", "comparison", "--models", "models", "--data", "prepared")


@pytest.fixture
def compared(run: Command, trained: Path, project: Path) -> Path:
    """A project with two models and their comparison, and a registry of its own that is still empty."""
    for name in ("raw", "prepared", "models", "reports"):
        shutil.copytree(trained / name, project / name)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("uri: none", "uri: sqlite:///mlflow.db"))
    result = run("compare", "reports", "--out", "comparison", "--set", "tracking.uri=none")
    assert result.returncode == 0, result.stderr
    return project


@pytest.mark.slow
def test_the_winner_is_registered_promoted_used_and_rolled_back(run: Command, compared: Path) -> None:
    result = run(*REGISTER, "--out", "registered.json")
    assert result.returncode == 0, result.stderr
    assert "registered: severity version 1" in result.stdout

    shown = run("show", "comparison", "--registered", "registered.json")
    assert "promote severity 1 --to champion" in shown.stdout

    dry = run("promote", "severity", "1", "--dry-run")
    assert (dry.returncode, "champion would be version 1 (was not set)" in dry.stdout) == (0, True)
    moved = run("promote", "severity", "1", "--to", "champion")
    assert (moved.returncode, "champion is now version 1 (was not set)" in moved.stdout) == (0, True)
    again = run("promote", "severity", "1")
    assert again.stdout == "severity: champion is version 1 already\n"

    listed = run("models").stdout.splitlines()
    assert listed[0].split()[:3] == ["name", "version", "aliases"]
    assert "champion" in listed[1]

    image = str(min((compared / "raw" / "images").glob("*.png")).relative_to(compared))
    winner = json.loads((compared / "registered.json").read_text())
    by_alias = run("predict", "--model", "models:/severity@champion", image, "--json")
    by_folder = run("predict", "--model", f"models/{winner['loss']}/{winner['seed']}", image, "--json")
    assert by_alias.returncode == 0, by_alias.stderr
    assert json.loads(by_alias.stdout) == json.loads(by_folder.stdout)
    assert json.loads(by_alias.stdout)[0]["image"] == image
    table = run("predict", "--model", f"models/{winner['loss']}/{winner['seed']}", image).stdout.splitlines()
    assert table[0].split() == ["image", "grade", "none", "mild", "moderate", "severe"]

    nothing_before = run("rollback", "severity")
    assert nothing_before.returncode == 2
    assert "Traceback" not in nothing_before.stderr


@pytest.mark.slow
def test_a_refusal_to_register_is_a_result_and_a_refusal_to_promote_gives_3(run: Command, compared: Path) -> None:
    demanding = ("--set", "gate=[{metric: val_accuracy, threshold: 1.0}]")
    refused = run(*REGISTER, "--out", "refused.json", *demanding)
    assert refused.returncode == 0, refused.stderr
    assert "not registered: ce, seed 1" in refused.stdout
    assert json.loads((compared / "refused.json").read_text())["registered"] is False

    assert run(*REGISTER, "--out", "registered.json", "--name", "other").returncode == 0
    promoted = run("promote", "other", "1", *demanding)
    assert promoted.returncode == 3
    assert "the gate refused other version 1 as champion" in promoted.stderr
    assert "Traceback" not in promoted.stderr
    assert "champion" not in run("models", "other").stdout

    unknown = run("models", "nowhere")
    assert unknown.returncode == 2
    assert "other" in unknown.stderr


def test_predict_grades_a_folder_goes_past_a_bad_file_and_names_it(run: Command, trained: Path, project: Path) -> None:
    scans = project / "scans" / "monday"
    scans.mkdir(parents=True)
    for image in sorted((trained / "raw" / "images").glob("*.png"))[:3]:
        shutil.copy(image, scans)
    names = sorted(str(path.relative_to(project)) for path in scans.iterdir())
    (scans / "broken.png").write_bytes(b"not an image")
    (scans / "notes.txt").write_text("no image, and not taken for one")
    predict = ("predict", "--model", trained / "models" / "ce" / "1", "scans", "absent.png")

    result = run(*predict, "--csv", "grades.csv", "--json")
    assert result.returncode == 2
    assert "2 of 5 images could not be read and were not graded:" in result.stderr
    assert "scans/monday/broken.png: not a readable image" in result.stderr
    assert "absent.png: not a readable image" in result.stderr
    assert "Traceback" not in result.stderr

    answers = json.loads(result.stdout)
    assert [answer["image"] for answer in answers] == names
    assert all(answer["decision"] == {"rule": "argmax"} for answer in answers)
    table = pd.read_csv(project / "grades.csv")
    assert list(table["image"]) == names
    assert list(table["grade"]) == [answer["grade"] for answer in answers]
    assert np.allclose(table.iloc[:, 2:], [list(answer["probabilities"].values()) for answer in answers])


def test_predict_names_the_rule_of_the_models_card(run: Command, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "models" / "ce" / "1", project / "model")
    card = json.loads((project / "model" / "model.json").read_text())
    (project / "model" / "model.json").write_text(json.dumps(card | {"decision": {"rule": "median"}}))
    image = min((trained / "raw" / "images").glob("*.png"))
    result = run("predict", "--model", "model", image, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["decision"] == {"rule": "median"}
    assert "decided by: median" in run("predict", "--model", "model", image).stdout


def test_predict_refuses_a_folder_without_images_and_a_place_it_cannot_write(
    run: Command, trained: Path, project: Path
) -> None:
    (project / "empty").mkdir()
    nothing = run("predict", "--model", trained / "models" / "ce" / "1", "empty")
    assert (nothing.returncode, "empty: no images in this folder" in nothing.stderr) == (2, True)
    image = min((trained / "raw" / "images").glob("*.png"))
    refused = run("predict", "--model", trained / "models" / "ce" / "1", image, "--csv", "params.yaml/grades.csv")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
