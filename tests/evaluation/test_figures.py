"""The figures draw for every number of classes they promise, without pyplot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raregrade.evaluation import figures
from raregrade.evaluation.calibration import reliability
from raregrade.labels import LabelSpace


def is_drawn(path: Path, least: int = 250) -> bool:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return min(pixels.shape[:2]) >= least and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("k", [2, 4, 9, 20])
def test_a_confusion_matrix_of_any_size_is_drawn(tmp_path: Path, k: int) -> None:
    matrix = np.random.default_rng(0).poisson(900 * np.exp(-2.0 * np.abs(np.subtract.outer(range(k), range(k)))))
    matrix[0] = 0
    figures.draw_confusion(
        matrix, [f"a finding with a long name and a $ sign {i}" for i in range(k)], tmp_path / "c.png"
    )
    assert is_drawn(tmp_path / "c.png")


def test_undefined_values_are_drawn_as_such(tmp_path: Path) -> None:
    rows = [
        {"class": "a", "support": 3, "f1": 0.5, "f1_interval": None, "auroc": None, "auroc_interval": None},
        {"class": "b", "support": 0, "f1": None, "f1_interval": None, "auroc": 0.9, "auroc_interval": [0.8, 0.95]},
    ]
    figures.draw_per_class(rows, tmp_path / "p.png")
    assert is_drawn(tmp_path / "p.png", least=200)


def test_losses_without_a_metric_or_an_interval_are_drawn(tmp_path: Path) -> None:
    full = {"mean": 0.7, "low": 0.6, "high": 0.8, "per_seed": {"1": 0.68, "2": 0.72}}
    bare = {"mean": 0.5, "low": None, "high": None, "per_seed": {"1": 0.5}}
    rows = [
        {"loss": f"loss {i}", "winner": i == 1, "metrics": metrics}
        for i, metrics in enumerate([{"val_qwk": full, "val_f1_a": bare}, {"val_qwk": bare}, {}] * 4)
    ]
    figures.draw_forest(rows, ["val_qwk", "val_mae"], "loss 0", tmp_path / "f.png")
    figures.draw_class_f1(rows, ["a", "b"], "val", tmp_path / "g.png")
    assert is_drawn(tmp_path / "f.png")
    assert is_drawn(tmp_path / "g.png")


def test_the_roc_curve_has_the_area_that_is_printed() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(300) < 0.3, np.round(rng.random(300), 1)
    false_rate, true_rate = figures._roc_curve(positive, scores)
    from sklearn.metrics import roc_auc_score

    assert np.trapezoid(true_rate, false_rate) == pytest.approx(roc_auc_score(positive, scores))


def test_reliability_bins_and_their_error_equal_a_worked_example() -> None:
    space = LabelSpace("multiclass", ("a", "b"))
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [1.0, 0.0]])
    found = reliability(np.array([0, 1, 0, 0]), probs, space)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert found.observed[9] == pytest.approx(2 / 3)
    assert found.confidence[9] == pytest.approx(2.9 / 3)
    assert found.error == pytest.approx((0.45 * 1 + (2.9 - 2)) / 4)


def test_unknown_labels_are_left_out_of_reliability() -> None:
    space = LabelSpace("multilabel", ("a", "b"))
    found = reliability(np.array([[1.0, np.nan], [0.0, 1.0]]), np.array([[0.9, 0.3], [0.1, 0.8]]), space)
    assert found.counts.sum() == 3


def test_pyplot_is_never_imported() -> None:
    code = "import sys, raregrade.evaluation.report; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
