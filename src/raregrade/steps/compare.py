"""Step ``compare``: reports of several losses and seeds to one table and a winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.config import CompareSection
from raregrade.tracking import DatasetIdentity, Tracking, start_step


def compare(section: CompareSection, reports: Sequence[Path], out: Path, *, tracking: Tracking) -> dict[str, Any]:
    """Compare ``reports`` with patient-level statistics, choose the winner on validation, write ``out``.

    Returns:
        The content of ``comparison.json``.

    Raises:
        DataError: reports are missing, or were not made on the same images and labels.
    """
    from raregrade.evaluation.compare import compare_reports

    comparison = compare_reports(reports, section, out)
    dataset = comparison.get("dataset")
    identity = DatasetIdentity(**dataset) if dataset else None
    if identity is not None:
        tracking = tracking.for_dataset(identity.content_hash)
    with start_step(tracking, "compare", name="compare", data=identity) as run:
        run.log_params({"baseline": comparison["baseline"], "selection_metric": section.selection_metric})
        run.log_params({"winner": comparison["winner"]["loss"], "winner_seed": comparison["winner"]["seed"]})
        for loss, entry in comparison["losses"].items():
            run.log_metrics({f"{loss}/{name}": value["mean"] for name, value in entry["metrics"].items()})
        run.log_artifacts(out)
        run.describe_pipeline(comparison["advice"])
    return comparison
