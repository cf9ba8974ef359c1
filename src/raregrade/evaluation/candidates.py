"""Report folders as candidates of a comparison: reading them, and refusing what cannot be compared.

A comparison is fair where all candidates were judged on the same images with the same targets and groups, and each
loss with each seed once. Everything that breaks this is an error that names the two reports and what differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raregrade.config.evaluation import CompareConfig
from raregrade.errors import DataError, ModelError
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import Predictions, read_predictions
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Candidate:
    """One report: a loss with one seed.

    Attributes:
        path: the report folder.
        loss, kind, seed: what was trained; ``kind`` is ``external`` for predictions of another program.
        report: the content of report.json.
        predictions: rows of val and test, sorted by split and image.
        decision: the rule that its report decides by.
        metrics: ``val_*`` and ``test_*``, computed from ``predictions``.
        fold: the fold of cross-validation that it did not train on, which is its val split; None for the fixed split.
    """

    path: Path
    loss: str
    kind: str
    seed: int
    report: dict[str, Any]
    predictions: Predictions
    decision: Decision
    metrics: dict[str, float]
    fold: int | None = None

    @property
    def model(self) -> str:
        """Its name among the models of its loss."""
        return str(self.seed) if self.fold is None else f"{self.seed}/{self.fold}"


def read_candidates(
    reports: Sequence[Path], config: CompareConfig
) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """Read and check ``reports``: loss → its candidates in the order of its seeds, and what is left out.

    Losses come in the order of ``config.losses``, then external ones that it does not name. Left out are reports of
    other losses and seeds: whoever changes ``compare.losses`` finds those of the earlier list in the same folder.

    Raises:
        DataError: a folder that is no report, predictions and metrics that disagree, different label spaces, images,
            targets, groups or datasets, a loss and seed twice, one that is missing.
    """
    return arranged([read_candidate(Path(path)) for path in reports], config)


def arranged(found: Sequence[Candidate], config: CompareConfig) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """Check candidates that were read and order them; what ``read_candidates`` returns and raises."""
    candidates = [candidate for candidate in found if _is_named(candidate, config)]
    left_out = [candidate for candidate in found if not _is_named(candidate, config)]
    _check_unique(candidates)
    _check_complete(candidates, config)
    references: dict[int | None, Candidate] = {}
    for candidate in candidates:
        if candidate.loss == config.baseline:
            references.setdefault(candidate.fold, candidate)
    first = next(iter(references.values()))
    for candidate in candidates:
        # Models of different folds share the test split alone.
        _check_comparable(first, candidate, SPLITS if candidate.fold == first.fold else ("test",))
        if candidate.fold in references:
            _check_comparable(references[candidate.fold], candidate)
    external = sorted({c.loss for c in candidates if c.loss not in config.losses})
    by_loss = {
        loss: sorted((c for c in candidates if c.loss == loss), key=lambda c: _position(c, config))
        for loss in (*config.losses, *external)
    }
    return by_loss, left_out


def read_candidate(path: Path) -> Candidate:
    """The report folder ``path``. Raises DataError where it is none, or its files disagree."""
    report = _read_json(path / "report.json")
    try:
        space = LabelSpace.from_json(report["label_space"])
        loss, kind, seed = str(report["loss"]), str(report["kind"]), int(report["seed"])
        decision = Decision.from_json(report["decision"])
    except KeyError as err:
        raise DataError(
            f"{path / 'report.json'}: not a report of this version, it lacks {err}; make it again with "
            "`raregrade evaluate`"
        ) from err
    except (TypeError, ValueError, ModelError) as err:
        raise DataError(
            f"{path / 'report.json'}: not a report ({err!r}); make it again with `raregrade evaluate`"
        ) from err
    predictions = read_predictions(path / "predictions.parquet", space)
    frame = predictions.frame[predictions.frame["split"].isin(SPLITS)]
    if "test" not in predictions.splits:
        raise DataError(f"{path}: has no predictions of the test split; evaluate on a dataset with one")
    ordered = frame.sort_values(["split", "image_id"], ignore_index=True)
    predictions = Predictions(ordered, space, predictions.assumptions)
    metrics = {
        f"{split}_{name}": value
        for split in SPLITS
        if split in predictions.splits
        for name, value in compute_metrics(
            predictions.targets(split), predictions.probs(split), space, decision
        ).items()
    }
    _check_metrics(path, metrics)
    return Candidate(path, loss, kind, seed, report, predictions, decision, metrics)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file; a report folder is made by `raregrade evaluate`") from err
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: cannot be read ({err}); make it again with `raregrade evaluate`") from err
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {type(value).__name__}, not an object; make it again with `raregrade evaluate`")
    return value


def _check_metrics(path: Path, computed: dict[str, float]) -> None:
    """metrics.json must be of these predictions: one of the two files may have been changed or replaced."""
    written = _read_json(path / "metrics.json")
    for name, value in computed.items():
        if name not in written or not math.isclose(written[name], value, rel_tol=0, abs_tol=1e-6):
            raise DataError(
                f"{path}: metrics.json says {name} = {written.get(name)}, its predictions give {value:.6f}; "
                "make the report again with `raregrade evaluate`"
            )


def _check_unique(candidates: Sequence[Candidate]) -> None:
    seen: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        key = (candidate.loss, candidate.model)
        if key in seen:
            fold = "" if candidate.fold is None else f" on fold {candidate.fold}"
            raise DataError(
                f"{seen[key].path} and {candidate.path} are both loss {candidate.loss} with seed {candidate.seed}"
                f"{fold}; give one of them"
            )
        seen[key] = candidate


def _is_named(candidate: Candidate, config: CompareConfig) -> bool:
    """Whether the comparison is about this report. Those of losses tried earlier may lie beside it."""
    if candidate.loss in config.losses:
        return candidate.seed in config.seeds_for(candidate.loss)
    return candidate.kind == "external"


def _check_complete(candidates: Sequence[Candidate], config: CompareConfig) -> None:
    present = {(c.loss, c.seed) for c in candidates}
    missing = [
        f"{loss}/{seed}" for loss in config.losses for seed in config.seeds_for(loss) if (loss, seed) not in present
    ]
    if config.baseline not in {c.loss for c in candidates}:
        raise DataError(
            f"there is no report of the baseline {config.baseline}; train and evaluate it, or change compare.baseline"
        )
    if missing:
        raise DataError(
            f"the comparison lacks the report{'s' if len(missing) > 1 else ''} (loss/seed) {', '.join(missing)}; train "
            "and evaluate them, or change compare.losses, compare.seeds or, for one loss, compare.seeds_of"
        )
    for candidate in candidates:
        if candidate.loss in config.losses and "val" not in candidate.predictions.splits:
            raise DataError(
                f"{candidate.path}: has no predictions of the val split, on which the winner is chosen; add them, or "
                f"leave {candidate.loss} out of compare.losses"
            )


def _check_comparable(first: Candidate, other: Candidate, splits: Sequence[str] = SPLITS) -> None:
    """The same label space, prepared dataset, images, targets and groups."""
    both = f"{first.path} and {other.path}"
    a, b = first.predictions.label_space, other.predictions.label_space
    if a != b:
        raise DataError(
            f"{both} have different label spaces: {a.to_json()} and {b.to_json()}; compare reports of one dataset"
        )
    hashes = [(c.report.get("dataset") or {}).get("content_hash") for c in (first, other)]
    if None not in hashes and hashes[0] != hashes[1]:
        raise DataError(
            f"{both} come from different prepared datasets ({hashes[0]}, {hashes[1]}); train and evaluate both on one"
        )
    for split in splits:
        if split in first.predictions.splits and split in other.predictions.splits:
            _check_same_rows(both, split, first.predictions, other.predictions)


def _check_same_rows(both: str, split: str, first: Predictions, other: Predictions) -> None:
    a, b = first.image_ids(split), other.image_ids(split)
    if not np.array_equal(a, b):
        only = [sorted(set(a) - set(b)), sorted(set(b) - set(a))]
        found = "; ".join(
            f"{len(o)} only in the {n}, such as {o[0]}" for o, n in zip(only, ("first", "second"), strict=True) if o
        )
        raise DataError(f"{both} judge different {split} images: {found}; evaluate both on the same images")
    for what, x, y in (
        ("targets", first.targets(split), other.targets(split)),
        ("groups", first.groups(split), other.groups(split)),
    ):
        # An unknown label (NaN) equals an unknown label.
        same = (x == y) | (pd.isna(x) & pd.isna(y))
        if not same.all():
            row = int(np.argmin(same.reshape(len(a), -1).all(axis=1)))
            raise DataError(
                f"{both} have different {what} for {split} image {a[row]}: {_show(x[row])} and {_show(y[row])}; "
                "evaluate both with the same labels"
            )


def _show(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def _position(candidate: Candidate, config: CompareConfig) -> tuple[int, int, int]:
    seeds, seed = config.seeds_for(candidate.loss), candidate.seed
    fold = -1 if candidate.fold is None else candidate.fold
    return (seeds.index(seed) if seed in seeds else len(seeds), seed, fold)
