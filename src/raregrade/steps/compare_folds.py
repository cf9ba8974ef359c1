"""Step ``compare_folds``: the reports of cross-validation to one comparison of losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.atomic import atomic_folder
from raregrade.config import CompareSection
from raregrade.data.manifest import PreparedDataset
from raregrade.steps.compare import logged
from raregrade.tracking import Tracking

COMPARISON = "comparison"
FOLDS = "folds.json"


def compare_folds(
    section: CompareSection, reports: Sequence[Path], data: Path, out: Path, *, tracking: Tracking
) -> dict[str, Any]:
    """Compare losses over the folds of cross-validation, each model by its own metrics.

    Writes ``out / "comparison"`` as step ``compare`` does, with the models of all seeds and folds, and ``folds.json``:
    loss to seed to validation metric to ``mean``, ``sd`` and ``per_fold``.

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
    from raregrade.evaluation.compare import compare_candidates
    from raregrade.evaluation.folds import read_fold_candidates, spread
    from raregrade.evaluation.report import write_json

    candidates, left_out = read_fold_candidates(reports, PreparedDataset.open(data).manifest, section.compare)
    folds = {
        loss: {
            str(seed): spread([c for c in members if c.seed == seed]) for seed in dict.fromkeys(c.seed for c in members)
        }
        for loss, members in candidates.items()
    }
    with atomic_folder(out) as folder:
        comparison = logged(
            lambda facts: compare_candidates(candidates, left_out, section, folder / COMPARISON, facts),
            section,
            folder / COMPARISON,
            tracking,
        )
        write_json(folder / FOLDS, folds)
    return {"comparison": comparison, "folds": folds}
