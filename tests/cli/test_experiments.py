"""train, evaluate, compare and show, as processes on real files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
CLASSES = ["none", "mild", "severe"]


@pytest.fixture
def external(project: Path) -> Path:
    """A project with predictions that another program could have made, and their label space."""
    random = np.random.default_rng(7)
    rows = 60
    target = np.arange(rows) % 3
    probs = random.dirichlet(np.ones(3), rows) * 0.5
    probs[np.arange(rows), target] += 0.5
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(rows)],
            "group_id": [f"p{i // 2}" for i in range(rows)],
            "split": np.where(np.arange(rows) < rows // 2, "val", "test"),
            "target": target,
        }
        | {f"prob_{name}": probs[:, k] for k, name in enumerate(CLASSES)}
    )
    table.to_csv(project / "predictions.csv", index=False)
    (project / "labels.json").write_text(json.dumps({"task": "ordinal", "classes": CLASSES}))
    return project


def test_predictions_of_another_program_are_judged(run: Command, external: Path) -> None:
    result = run("evaluate", "--predictions", "predictions.csv", "--labels", "labels.json", "--out", "report")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "decided by: argmax"
    assert lines[1].split() == ["metric", "val", "test"]
    assert lines[2].split()[0] == "qwk"
    assert lines[-1] == "report: report/report.html"
    assert (external / "report" / "report.html").is_file()
    metrics = json.loads((external / "report" / "metrics.json").read_text())
    assert lines[2].split()[1:] == [f"{metrics['val_qwk']:.4f}", f"{metrics['test_qwk']:.4f}"]


def test_predictions_with_a_label_outside_the_classes_are_refused_with_file_and_row(
    run: Command, external: Path
) -> None:
    table = pd.read_csv(external / "predictions.csv")
    table.loc[4, "target"] = 7
    table.to_csv(external / "predictions.csv", index=False)
    result = run("evaluate", "--predictions", "predictions.csv", "--labels", "labels.json", "--out", "report")
    assert result.returncode == 2
    assert "predictions.csv" in result.stderr
    assert "7" in result.stderr
    assert not (external / "report").exists()


def test_show_refuses_a_file_that_is_no_comparison(run: Command, project: Path) -> None:
    (project / "comparison.json").write_text('{"losses": {}}')
    result = run("show", ".")
    assert result.returncode == 2
    assert "comparison.json is not a comparison. `raregrade compare` writes it." in result.stderr


@pytest.mark.slow
def test_losses_are_trained_judged_compared_and_shown(run: Command, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "reports", project / "reports")
    compared = run("compare", "reports", "--out", "comparison")
    assert compared.returncode == 0, compared.stderr
    assert "cdw_ce" in compared.stdout
    assert compared.stdout.splitlines()[-1] == "report: comparison/comparison.html"
    assert (project / "comparison" / "comparison.html").is_file()
    again = run("compare", "reports/ce/1", "reports/cdw_ce/1", "--out", "again")
    assert again.stdout.replace("again/", "comparison/") == compared.stdout
    assert run("show", "comparison").stdout == compared.stdout


@pytest.mark.slow
def test_an_interrupted_training_gives_75_and_the_same_command_resumes_it(
    run: Command, stop: Callable[..., tuple[int, str]], prepared: Path, project: Path
) -> None:
    shutil.copytree(prepared / "prepared", project / "prepared")
    command = ["train", "--data", "prepared", "--loss", "ce", "--out", "model", "--set", "train.epochs=60"]
    command += ["--checkpoints", "kept"]

    code, stderr = stop(command, project, signal.SIGTERM, once=lambda text: "epoch 2/60" in text)
    assert code == 75, stderr
    assert "again" in stderr.splitlines()[-1]
    assert not (project / "model").exists()
    assert list((project / "kept").rglob("state-*.pt"))
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert "resumed after epoch" in result.stderr
    assert (project / "model" / "model.json").is_file()


def test_what_a_table_of_predictions_leaves_open_is_said_on_the_screen(run: Command, external: Path) -> None:
    table = pd.read_csv(external / "predictions.csv").drop(columns=["split", "group_id"])
    table.to_csv(external / "predictions.csv", index=False)
    result = run("evaluate", "--predictions", "predictions.csv", "--labels", "labels.json", "--out", "report")
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("assumed: ")]
    assert [line.split(":")[1] for line in said] == [
        " there is no column group_id", " there is no column split", " target holds numbers, and the classes are names"
    ]  # fmt: skip


def test_what_speaks_against_a_model_and_its_rule_are_said_before_the_metrics(run: Command, external: Path) -> None:
    table = pd.read_csv(external / "predictions.csv")
    table["prob_mild"] += table["prob_severe"]
    table["prob_severe"] = 0.0
    table.to_csv(external / "predictions.csv", index=False)
    command = ["evaluate", "--predictions", "predictions.csv", "--labels", "labels.json", "--out", "report"]
    result = run(*command, "--set", "evaluate.decision=median")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("alarm: the model never predicts severe (10 test images")
    assert lines[1] == "decided by: median (the rule of the loss is argmax)"


@pytest.mark.slow
def test_losses_are_compared_over_folds_by_a_command(run: Command, prepared: Path, project: Path) -> None:
    shutil.copytree(prepared / "raw", project / "raw")
    folds = ("--set", "data.split.folds=2")
    assert run("prepare", "--out", "prepared", *folds).returncode == 0
    for loss in ("ce", "cdw_ce"):
        for fold in ("0", "1"):
            model, report = f"models/{loss}/1/{fold}", f"reports/{loss}/1/{fold}"
            trained = run("train", "--data", "prepared", "--loss", loss, "--fold", fold, "--out", model, *folds)
            assert trained.returncode == 0, trained.stderr
            judged = run("evaluate", "--model", model, "--data", "prepared", "--out", report, *folds)
            assert judged.returncode == 0, judged.stderr
    compared = run("compare-folds", "reports", "--data", "prepared", "--out", "folds", *folds)
    assert compared.returncode == 0, compared.stderr
    assert "val_qwk of each fold:" in compared.stdout
    assert compared.stdout.splitlines()[-1] == "report: folds/comparison/comparison.html"
    spread = json.loads((project / "folds" / "folds.json").read_text())
    assert list(spread["ce"]["1"]["val_qwk"]["per_fold"]) == ["0", "1"]

    shutil.rmtree(project / "reports" / "ce" / "1" / "1")
    lacking = run("compare-folds", "reports", "--data", "prepared", "--out", "again", *folds)
    assert (lacking.returncode, (project / "again").exists()) == (2, False)
    assert "Traceback" not in lacking.stderr
