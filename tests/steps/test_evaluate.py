"""Step ``evaluate``: a model is judged by the rule it was trained with, or by the one that the settings name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import Params, params_from_dict, section
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import draw_phantom
from raregrade.data.prepare import prepare_dataset
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import Predictions, read_predictions
from raregrade.models.decisions import Decision
from raregrade.models.folder import read_card
from raregrade.steps.evaluate import evaluate
from raregrade.steps.train import train
from raregrade.tracking import Tracking

CLASSES = ["none", "mild", "moderate", "severe"]


def params_with(raw: Path, **evaluation: Any) -> Params:
    data = {"source": "phantom", "path": str(raw), "task": "ordinal", "classes": CLASSES, "image_size": 32}
    return params_from_dict(
        {
            "seed": 7,
            "data": data,
            "phantom": {"patients": 60, "image_size": 32},
            "train": {
                "backbone": "test_resnet",
                "epochs": 2,
                "batch_size": 32,
                "lr": 1e-3,
                "threads": 1,
                "precision": "float32",
            },
            "losses": {"ce": {}, "corn": {}},
            "compare": {"losses": ["ce", "corn"], "seeds": [1], "baseline": "ce"},
            "evaluate": evaluation,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``raw``, ``prepared`` and a model of CORN, ``corn``."""
    root = tmp_path_factory.mktemp("evaluate")
    params = params_with(root / "raw")
    draw_phantom(params.phantom, 7, root / "raw")
    prepare_dataset(params.data, 7, root / "prepared")
    train(
        section(params, "train", "corn"),
        root / "prepared",
        root / "corn",
        seed=1,
        tracking=Tracking("none", "steps"),
        checkpoints=str(root / "kept"),
    )
    return root


def judged(root: Path, out: Path, tracking: Tracking, **evaluation: Any) -> tuple[dict[str, float], dict[str, Any]]:
    part = section(params_with(root / "raw", **evaluation), "evaluate")
    metrics = evaluate(part, root / "corn", root / "prepared", out, tracking=tracking)
    return metrics, json.loads((out / "report.json").read_text())


def predictions_of(root: Path, out: Path) -> Predictions:
    return read_predictions(out / "predictions.parquet", PreparedDataset.open(root / "prepared").label_space)


def test_corn_is_trained_and_judged_by_counting_thresholds(trained: Path, tmp_path: Path, no_tracking) -> None:
    card = read_card(trained / "corn")
    assert card["decision"] == {"rule": "median"}
    metrics, report = judged(trained, tmp_path / "r", no_tracking)
    assert report["decision"] == report["own_decision"] == {"rule": "median"}
    predictions = predictions_of(trained, tmp_path / "r")
    targets, probs = predictions.targets("val"), predictions.probs("val")
    by_rule = {
        rule: compute_metrics(targets, probs, predictions.label_space, Decision(rule))["qwk"]
        for rule in ("argmax", "median")
    }
    assert by_rule["argmax"] != pytest.approx(by_rule["median"], abs=1e-3)
    assert metrics["val_qwk"] == by_rule["median"] == pytest.approx(card["selection"]["value"], abs=1e-9)


def test_settings_may_decide_every_loss_by_one_rule(trained: Path, tmp_path: Path, no_tracking) -> None:
    costs = [[float((i - j) ** 2) for j in range(4)] for i in range(4)]
    metrics, report = judged(trained, tmp_path / "r", no_tracking, decision="expected_cost", costs=costs)
    assert report["decision"] == {"rule": "expected_cost", "costs": costs}
    assert report["own_decision"] == {"rule": "median"}
    predictions = predictions_of(trained, tmp_path / "r")
    targets, probs = predictions.targets("test"), predictions.probs("test")
    cheapest = np.argmin([[sum(p[i] * costs[i][j] for i in range(4)) for j in range(4)] for p in probs], axis=1)
    assert metrics["test_accuracy"] == np.mean(cheapest == targets)


def test_what_prepare_found_stands_in_the_report(trained: Path, tmp_path: Path, no_tracking, monkeypatch) -> None:
    found = PreparedDataset.open(trained / "prepared")
    found.info["warnings"] = ["column patient_id looks like a patient"]
    monkeypatch.setattr(PreparedDataset, "open", lambda *_, **__: found)
    _, report = judged(trained, tmp_path / "r", no_tracking)
    assert report["data_warnings"] == ["column patient_id looks like a patient"]
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.index("column patient_id looks like a patient") < page.index("<h2>Metrics</h2>")
