"""Predictions drawn from a seed, and report folders made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import CompareSection
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig
from raregrade.evaluation.predictions import Predictions, make_predictions, write_predictions
from raregrade.evaluation.report import Judged, judge, write_json
from raregrade.labels import LabelSpace

MakePredictions = Callable[..., Predictions]
MakeReport = Callable[..., Path]
MakeSection = Callable[..., CompareSection]


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
def graded(ordinal: LabelSpace) -> MakePredictions:
    """200 images a split of 100 patients, four grades in turn, the first so many of which are one grade off.

    Each image's grade has the share of the split that is right as its probability, within [0.4, 0.97].
    """

    def make(val_errors: int, test_errors: int) -> Predictions:
        targets = np.tile(np.arange(4), 100)
        split = np.repeat(["val", "test"], 200)
        position = np.arange(400) % 200
        errors = np.where(split == "val", val_errors, test_errors)
        wrong, sure = position < errors, np.clip(1 - errors / 200, 0.4, 0.97)[:, None]
        guess = np.where(wrong, np.where(targets == 3, 2, targets + 1), targets)
        return make_predictions(
            ordinal,
            image_id=[f"{s}{i:03d}" for s, i in zip(split, position, strict=True)],
            group_id=[f"{s} patient {i // 2}" for s, i in zip(split, position, strict=True)],
            split=split,
            targets=targets,
            probs=(1 - sure) / 3 + (sure - (1 - sure) / 3) * np.eye(4)[guess],
        )

    return make


@pytest.fixture
def compare_section() -> MakeSection:
    """The section of step ``compare``; no alarm is raised below a recall of one in a hundred."""

    def make(
        losses: Sequence[str] = ("ce", "cdw"),
        seeds: Sequence[int] = (1,),
        *,
        baseline: str = "ce",
        metric: str = "qwk",
        evaluate: EvaluateConfig | None = None,
        alarms: AlarmConfig | None = None,
        **more: Any,
    ) -> CompareSection:
        return CompareSection(
            compare=CompareConfig(losses=list(losses), seeds=list(seeds), baseline=baseline, **more),
            evaluate=evaluate or EvaluateConfig(),
            alarms=alarms or AlarmConfig(),
            selection_metric=metric,
        )

    return make


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
        tuned: dict[str, object] | None = None,
        data_warnings: Sequence[str] = (),
    ) -> Path:
        path = tmp_path / "reports" / (folder or f"{loss}/{seed}")
        if predictions is None:
            predictions = draw_predictions(ordinal, noise_seed=7 * seed + len(loss), strength=strength)
        card = {
            "loss": {"name": loss, "kind": kind or loss, "params": {}},
            "seed": seed,
            "dataset": {"content_hash": dataset, "source": "drawn"} if dataset else None,
            "train": train,
            "tuned": tuned,
        }
        judged = Judged(f"{loss}, seed {seed}", card, data_warnings=data_warnings)
        metrics, content = judge(predictions, judged)
        path.mkdir(parents=True, exist_ok=True)
        write_predictions(predictions, path / "predictions.parquet")
        write_json(path / "metrics.json", metrics)
        write_json(path / "report.json", content)
        return path

    return make
