"""Reports of cross-validation as candidates of one comparison, and the spread of metrics over folds.

Each image of training and validation is judged once a loss and seed, by the model that did not train on it. Each
model's metrics are its own: scores of different models have no common scale, and pooling them before AUROC puts
differences between models into it. The test split is every model's, and each of them is one reader of it. How losses
are compared is ``compare``'s business, and which test holds over folds ``paired``'s.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raregrade.config.evaluation import CompareConfig
from raregrade.errors import DataError
from raregrade.evaluation.candidates import Candidate, arranged, read_candidate


def read_fold_candidates(
    reports: Sequence[Path], manifest: pd.DataFrame, config: CompareConfig
) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """``reports`` as ``read_candidates`` returns them: loss → its candidates, in order of seeds and folds.

    Args:
        reports: folders made by ``evaluate`` for models of cross-validation, in any order.
        manifest: of the dataset: columns ``image_id`` and ``fold`` (-1 for test).
        config: losses, seeds and baseline.

    Raises:
        DataError: what ``read_candidates`` refuses; a report whose validation images are not those of one fold; a loss
            and seed that lacks a fold that another one has.
    """
    if not reports:
        raise DataError("no reports were given; evaluate the models of cross-validation first")
    folds = pd.Series(manifest["fold"].to_numpy(), index=manifest["image_id"].astype(str).to_numpy())
    candidates, left_out = arranged([_of_fold(read_candidate(Path(path)), folds) for path in reports], config)
    present = {c.fold for members in candidates.values() for c in members}
    for loss, members in candidates.items():
        for seed in dict.fromkeys(c.seed for c in members):
            own = {c.fold for c in members if c.seed == seed}
            if own != present:
                raise DataError(
                    f"{loss} with seed {seed} has reports of folds {_listed(own)}, others of {_listed(present)}; "
                    "evaluate each loss on each fold once"
                )
    return candidates, left_out


def spread(members: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """Validation metric to ``mean``, ``sd`` and ``per_fold`` of one loss and seed.

    A metric that some fold does not define is left out.
    """
    found: dict[int | None, Mapping[str, float]] = {c.fold: c.metrics for c in members}
    shared = [
        name
        for name in next(iter(found.values()))
        if name.startswith("val_") and all(name in values for values in found.values())
    ]
    return {
        name: {
            "mean": math.fsum(values[name] for values in found.values()) / len(found),
            "sd": statistics.stdev(values[name] for values in found.values()) if len(found) > 1 else None,
            "per_fold": {str(fold): values[name] for fold, values in found.items()},
        }
        for name in shared
    }


def _of_fold(candidate: Candidate, folds: pd.Series[Any]) -> Candidate:
    """``candidate`` with the fold that its validation images are."""
    predictions = candidate.predictions
    held_out = predictions.image_ids("val") if "val" in predictions.splits else np.array([], dtype=object)
    numbers = folds.reindex(held_out)
    number = int(numbers.iloc[0]) if len(numbers) and numbers.notna().all() and numbers.nunique() == 1 else -1
    if number < 0 or len(held_out) != int((folds == number).sum()):
        raise DataError(
            f"{candidate.path}: its validation images are not one fold of the dataset; "
            "train with a fold and evaluate on the same dataset"
        )
    return replace(candidate, fold=number)


def _listed(folds: set[int | None]) -> str:
    return ", ".join(str(fold) for fold in sorted(folds, key=str))
