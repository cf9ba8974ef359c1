"""Predictions drawn from a seed, and report folders made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raregrade.evaluation.predictions import Predictions, make_predictions, write_predictions
from raregrade.evaluation.report import Judged, judge, write_json
from raregrade.labels import LabelSpace

MakePredictions = Callable[..., Predictions]
MakeReport = Callable[..., Path]


def draw_predictions(
    space: LabelSpace, *, noise_seed: int = 0, strength: float = 2.0, images: int = 240, data_seed: int = 0
) -> Predictions:
    """Images, groups, splits and targets follow from ``data_seed`` alone; the quality of the guesses from the rest."""
    data, noise = np.random.default_rng(data_seed), np.random.default_rng(1000 + noise_seed)
    k, num_groups = space.num_classes, images // 3
    groups = data.integers(0, num_groups, images)
    split = np.array(["train", "val", "test"])[np.arange(num_groups) % 3][groups]
    scores = noise.normal(size=(images, k))
    if space.task == "multilabel":
        targets = (data.random((images, k)) < np.linspace(0.5, 0.2, k)).astype(float)
        targets[data.random((images, k)) < 0.05] = np.nan
        probs = 1 / (1 + np.exp(-scores - strength * (np.nan_to_num(targets) - 0.5)))
    else:
        targets = data.choice(k, images, p=np.linspace(2, 1, k) / np.linspace(2, 1, k).sum())
        scores = np.exp(scores - strength * 0.7 * np.abs(np.arange(k) - targets[:, None]))
        probs = scores / scores.sum(axis=1, keepdims=True)
    return make_predictions(
        space,
        image_id=[f"images/{i:04d}.png" for i in range(images)],
        group_id=[f"patient {g}" for g in groups],
        split=split,
        targets=targets,
        probs=probs,
    )


@pytest.fixture(scope="session")
def ordinal() -> LabelSpace:
    return LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))


@pytest.fixture(scope="session")
def multilabel() -> LabelSpace:
    return LabelSpace("multilabel", ("opacity", "nodule", "mass"), (("opacity", "nodule"), ("opacity", "mass")))


@pytest.fixture(scope="session")
def draw() -> MakePredictions:
    return draw_predictions


@pytest.fixture
def report(tmp_path: Path, ordinal: LabelSpace) -> MakeReport:
    """Write what a comparison reads of the report of a loss and seed; a stronger model guesses better."""

    def make(
        loss: str,
        seed: int = 1,
        *,
        strength: float = 2.0,
        predictions: Predictions | None = None,
        kind: str | None = None,
        dataset: str | None = "hash of the data",
        train: dict[str, object] | None = None,
        folder: str | None = None,
    ) -> Path:
        path = tmp_path / "reports" / (folder or f"{loss}/{seed}")
        if predictions is None:
            predictions = draw_predictions(ordinal, noise_seed=7 * seed + len(loss), strength=strength)
        card = {
            "loss": {"name": loss, "kind": kind or loss, "params": {}},
            "seed": seed,
            "dataset": {"content_hash": dataset, "source": "drawn"} if dataset else None,
            "train": train,
        }
        metrics, content = judge(predictions, Judged(f"{loss}, seed {seed}", card))
        path.mkdir(parents=True, exist_ok=True)
        write_predictions(predictions, path / "predictions.parquet")
        write_json(path / "metrics.json", metrics)
        write_json(path / "report.json", content)
        return path

    return make
