"""Step ``compare_folds``: the reports of cross-validation to one comparison of losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.atomic import atomic_folder
from raregrade.config import CompareSection
from raregrade.data.manifest import PreparedDataset
from raregrade.steps.compare import compare
from raregrade.tracking import Tracking

COMPARISON = "comparison"
FOLDS = "folds.json"


def compare_folds(
    section: CompareSection, reports: Sequence[Path], data: Path, out: Path, *, tracking: Tracking
) -> dict[str, Any]:
    """Pool the folds of each loss and seed, and compare the losses on all images that folds have predicted.

    Writes ``out / "comparison"`` as step ``compare`` does, ``out / "reports" / loss / seed`` for each pooled report,
    and ``folds.json``: loss to seed to validation metric to ``mean``, ``sd`` and ``per_fold``.

    Args:
        section: of step ``compare``.
        reports: one report a loss, seed and fold.
        data: the prepared dataset with the folds.
        out: the folder.
        tracking: where the run is logged.

    Returns:
        ``comparison`` (as ``comparison.json``) and ``folds`` (as ``folds.json``).

    Raises:
        DataError: a fold is missing or there twice, or what step ``compare`` refuses.
    """
    from raregrade.evaluation.folds import pool, read_fold_reports, spread
    from raregrade.evaluation.report import write_json

    runs = read_fold_reports(reports, PreparedDataset.open(data).manifest)
    folds: dict[str, dict[str, Any]] = {}
    for (loss, seed), members in runs.items():
        folds.setdefault(loss, {})[str(seed)] = spread(members)
    with atomic_folder(out) as folder:
        pooled = [folder / "reports" / loss / str(seed) for loss, seed in runs]
        for members, report in zip(runs.values(), pooled, strict=True):
            pool(members, report)
        comparison = compare(section, pooled, folder / COMPARISON, tracking=tracking)
        write_json(folder / FOLDS, folds)
    return {"comparison": comparison, "folds": folds}
