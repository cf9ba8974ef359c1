"""Trainings of one loss that differ in their seed alone: how often a comparison calls the loss better than itself.

``verdict_predictions.parquet`` holds what 24 such models say of the patients of a small phantom
(``configs/benchmarks/verdict.yaml``). Two disjoint sets of seeds play two losses, many times over; whatever is claimed
of them is false. Beside raregrade's test stands the rule that takes the trained weights as given and lets only patients
be random, which is what a bootstrap over patients of averaged seeds does.

Shape legend: M models, N images, K classes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from verdict_rates import CONFIDENCE

from raregrade.evaluation.jackknife import leave_one_out
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.paired import PairedModels
from raregrade.evaluation.predictions import Predictions, read_predictions
from raregrade.labels import LabelSpace

SPACE = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
SETTINGS = Path(__file__).parents[1] / "configs" / "benchmarks" / "verdict.yaml"
SEEDS = range(1, 25)
METRICS = ("qwk", "macro_f1", "accuracy", "auroc")
_OF_IMAGE = ("image_id", "group_id", "split", "target")
_NORMAL = 1.959964


@dataclass(frozen=True)
class Recorded:
    """``probs`` [M, N, K] of M trainings for the test images, ``targets`` [N], ``groups`` [N]."""

    targets: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    probs: npt.NDArray[np.float64]


def record(work: Path, table: Path) -> None:
    """Train with each seed what ``work`` lacks; write the models' probabilities to ``table``."""

    def run(*arguments: object) -> None:
        subprocess.run([sys.executable, "-m", "raregrade", *map(str, arguments), "--params", str(SETTINGS)], check=True)

    raw, prepared = work / "raw", work / "prepared"
    if not raw.exists():
        run("phantom", "--out", raw)
    if not prepared.exists():
        run("prepare", "--out", prepared, "--set", f"data.path={raw}")
    frames = []
    for seed in SEEDS:
        model, report = work / "models" / "ce" / str(seed), work / "reports" / "ce" / str(seed)
        if not (model / "model.json").exists():
            run("train", "--data", prepared, "--loss", "ce", "--seed", seed, "--out", model)
        if not (report / "metrics.json").exists():
            run("evaluate", "--model", model, "--data", prepared, "--out", report)
        frames.append(read_predictions(report / "predictions.parquet", SPACE))
    write_table(frames, table)


def write_table(reports: Sequence[Predictions], table: Path) -> None:
    """One row per image: image_id, group_id, split, target, and each seed's probabilities in half precision."""
    first = reports[0].frame
    columns = {name: first[name] for name in _OF_IMAGE}
    for seed, report in zip(SEEDS, reports, strict=True):
        if not report.frame[list(_OF_IMAGE)].equals(first[list(_OF_IMAGE)]):
            raise SystemExit(f"seed {seed} predicted other images than seed {SEEDS[0]}; record into an empty folder")
        for column, name in zip(SPACE.prob_columns, SPACE.classes, strict=True):
            columns[f"{seed}_{name}"] = report.frame[column].astype(np.float16)
    pd.DataFrame(columns).to_parquet(table, index=False)


def read_table(table: Path, split: str = "test") -> Recorded:
    """The images of ``split``, of what ``write_table`` wrote; rows sum to one again."""
    frame = pd.read_parquet(table)
    frame = frame[frame["split"] == split]
    columns = [str(name) for name in frame.columns]
    seeds = [name.removesuffix(f"_{SPACE.classes[0]}") for name in columns if name.endswith(f"_{SPACE.classes[0]}")]
    probs = np.stack([frame[[f"{s}_{c}" for c in SPACE.classes]].to_numpy(dtype=np.float64) for s in seeds])
    return Recorded(
        frame["target"].to_numpy(dtype=np.int64),
        frame["group_id"].to_numpy(dtype=str),
        probs / probs.sum(axis=2, keepdims=True),
    )


@dataclass(frozen=True)
class Claims:
    """Of many comparisons of a loss with itself, the share in which each rule claims a difference."""

    metric: str
    seeds: int
    raregrade: float
    patients_alone: float


def claims_of(recorded: Recorded, sizes: tuple[int, ...], times: int) -> list[Claims]:
    """For each metric and number of seeds; the same pairs of sets for each metric."""
    space, rng = SPACE, np.random.default_rng(0)
    metrics = [compute_metrics(recorded.targets, p, space) for p in recorded.probs]
    left_out = [leave_one_out(recorded.targets, p, recorded.groups, space) for p in recorded.probs]
    found = []
    for size in sizes:
        hits = dict.fromkeys(METRICS, 0)
        naive = dict.fromkeys(METRICS, 0)
        for _ in range(times):
            chosen = rng.permutation(len(metrics))[: 2 * size]
            pair = PairedModels(
                ("a",) * size + ("b",) * size,
                tuple(metrics[i] for i in chosen),
                tuple(left_out[i] for i in chosen),
                space,
                CONFIDENCE,
            )
            for name in METRICS:
                difference = pair.difference(name, "a", "b")
                hits[name] += difference.p is not None and difference.p <= 1 - CONFIDENCE
                weights = np.repeat([1 / size, -1 / size], size)
                error = np.sqrt(max(weights @ pair.covariance(name, ["a", "b"]) @ weights, 0.0))
                naive[name] += abs(difference.mean) > _NORMAL * error
        found += [Claims(name, size, hits[name] / times, naive[name] / times) for name in METRICS]
    return found
