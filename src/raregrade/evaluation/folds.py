"""Reports of cross-validation: those of one loss pooled into one, and the spread of metrics over folds.

Each image of training and validation is predicted once, by the model that did not train on it; pooled, these
predictions are one validation set as large as the whole, on which losses are compared patient by patient. The test
split is no fold's: every model predicts it, and its probabilities are averaged. How losses are compared is
``compare``'s business.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raregrade.errors import DataError
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import Predictions, make_predictions, read_predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.labels import LabelSpace


@dataclass(frozen=True)
class FoldReport:
    """The report on one model of cross-validation.

    Attributes:
        path: its folder.
        about: its report.json.
        fold: number of the fold that validated.
        predictions: rows of val (that fold) and test, sorted by split and image.
    """

    path: Path
    about: dict[str, Any]
    fold: int
    predictions: Predictions

    @property
    def run(self) -> tuple[str, int]:
        """Loss and seed."""
        return str(self.about["loss"]), int(self.about["seed"])


def read_fold_reports(reports: Sequence[Path], manifest: pd.DataFrame) -> dict[tuple[str, int], list[FoldReport]]:
    """``reports`` by loss and seed, each list in order of folds.

    Args:
        reports: folders made by ``evaluate``, in any order.
        manifest: of the dataset: columns ``image_id`` and ``fold`` (-1 for test).

    Raises:
        DataError: a report whose validation images are not those of one fold, or a fold that a loss lacks or has twice.
    """
    folds = pd.Series(manifest["fold"].to_numpy(), index=manifest["image_id"].astype(str).to_numpy())
    runs: dict[tuple[str, int], list[FoldReport]] = {}
    for path in reports:
        report = _read(Path(path), folds)
        runs.setdefault(report.run, []).append(report)
    if not runs:
        raise DataError("no reports were given; evaluate the models of cross-validation first")
    present = sorted({report.fold for members in runs.values() for report in members})
    for (loss, seed), members in runs.items():
        members.sort(key=lambda report: report.fold)
        if [report.fold for report in members] != present:
            have = ", ".join(str(report.fold) for report in members)
            raise DataError(
                f"{loss} with seed {seed} has reports of folds {have}, others of {', '.join(map(str, present))}; "
                "evaluate each loss on each fold once"
            )
    return runs


def pool(members: Sequence[FoldReport], out: Path) -> dict[str, float]:
    """Write the pooled report of one loss and seed to ``out``; returns its metrics.

    Raises:
        DataError: the folds were tested on different images.
    """
    first = members[0]
    space = first.predictions.label_space
    parts = [report.predictions.frame for report in members]
    val = pd.concat([frame[frame["split"] == "val"] for frame in parts], ignore_index=True)
    tests = [frame[frame["split"] == "test"].reset_index(drop=True) for frame in parts]
    for report, test in zip(members, tests, strict=True):
        if not test["image_id"].equals(tests[0]["image_id"]):
            raise DataError(
                f"{first.path} and {report.path} were tested on different images; evaluate both on one dataset"
            )
    test = tests[0].assign(
        **{column: np.mean([frame[column].to_numpy() for frame in tests], axis=0) for column in space.prob_columns}
    )
    rows = pd.concat([val, test], ignore_index=True)
    predictions = make_predictions(
        space,
        image_id=rows["image_id"].to_numpy(),
        group_id=rows["group_id"].to_numpy(),
        split=rows["split"].to_numpy(),
        targets=rows[space.target_columns].to_numpy() if space.task == "multilabel" else rows["target"].to_numpy(),
        probs=rows[space.prob_columns].to_numpy(),
    )
    loss, seed = first.run
    return write_report(predictions, out, Judged(f"{loss}, seed {seed}, {len(members)} folds", _card(first.about)))


def spread(members: Sequence[FoldReport]) -> dict[str, dict[str, Any]]:
    """Validation metric to ``mean``, ``sd`` and ``per_fold``; a metric that some fold does not define is left out."""
    found: dict[int, Mapping[str, float]] = {
        report.fold: compute_metrics(
            report.predictions.targets("val"), report.predictions.probs("val"), report.predictions.label_space
        )
        for report in members
    }
    shared = [
        name
        for name in next(iter(found.values()))
        if all(name in values and math.isfinite(values[name]) for values in found.values())
    ]
    return {
        f"val_{name}": {
            "mean": math.fsum(values[name] for values in found.values()) / len(found),
            "sd": statistics.stdev(values[name] for values in found.values()) if len(found) > 1 else None,
            "per_fold": {str(fold): values[name] for fold, values in found.items()},
        }
        for name in shared
    }


def _read(path: Path, folds: pd.Series) -> FoldReport:
    try:
        about = json.loads((path / "report.json").read_text(encoding="utf-8"))
        space = LabelSpace.from_json(about["label_space"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path} is not a report: {err!r}; `raregrade evaluate` writes one") from err
    predictions = read_predictions(path / "predictions.parquet", space)
    frame = predictions.frame.sort_values(["split", "image_id"], ignore_index=True)
    held_out = frame.loc[frame["split"] == "val", "image_id"]
    numbers = folds.reindex(held_out.to_numpy())
    number = int(numbers.iloc[0]) if len(numbers) and numbers.notna().all() and numbers.nunique() == 1 else -1
    if number < 0 or len(held_out) != int((folds == number).sum()):
        raise DataError(
            f"{path}: its validation images are not one fold of the dataset; "
            "train with a fold and evaluate on the same dataset"
        )
    return FoldReport(path, about, number, Predictions(frame, space))


def _card(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a pooled report says of its models: what they share, but no weights."""
    shared = {key: about.get(key) for key in ("seed", "dataset", "backbone", "train", "git_commit")}
    return {**shared, "loss": {"name": about["loss"], "kind": about["kind"], "params": about.get("params", {})}}
