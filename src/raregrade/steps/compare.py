"""Step ``compare``: reports of several losses and seeds to one table and a winner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raregrade.atomic import WriteError
from raregrade.config import CompareSection
from raregrade.tracking import DatasetIdentity, Tracking, start_step

if TYPE_CHECKING:
    from raregrade.evaluation.comparison_page import RunFacts
    from raregrade.evaluation.looks import Look

Facts = Callable[["Look", dict[str, Any] | None], "RunFacts"]
_logger = logging.getLogger(__name__)


def compare(section: CompareSection, reports: Sequence[Path], out: Path, *, tracking: Tracking) -> dict[str, Any]:
    """Compare ``reports``, choose a loss on validation, test it on the test split, and write ``out``.

    The look at the test split is counted (``raregrade.evaluation.looks``).

    Returns:
        The content of ``comparison.json``.

    Raises:
        DataError: reports are missing, or were not made on the same images and labels.
    """
    from raregrade.evaluation.compare import compare_reports

    return logged(lambda facts: compare_reports(reports, section, out, facts), section, out, tracking)


def logged(
    make: Callable[[Facts], dict[str, Any]], section: CompareSection, out: Path, tracking: Tracking
) -> dict[str, Any]:
    """Make a comparison in ``out``, count its look at the test split, and log it.

    Args:
        make: makes it, given what looks up the facts of this run.
        section: of step ``compare``.
        out: the folder that ``make`` writes.
        tracking: where the run is logged.
    """
    seen: dict[str, str] = {}

    def facts(look: Look, dataset: Mapping[str, Any] | None) -> RunFacts:
        from raregrade.tracking.looks import look_tags

        seen.update(look_tags(look.split, look.identity))
        return _facts(look, dataset, tracking)

    comparison = make(facts)
    dataset = comparison.get("dataset")
    identity = DatasetIdentity(**dataset) if dataset else None
    if identity is not None:
        tracking = tracking.for_dataset(identity.content_hash)
    with start_step(tracking, "compare", name="compare", data=identity, tags=seen) as run:
        run.log_params({"baseline": comparison["baseline"], "selection_metric": section.selection_metric})
        run.log_params({"winner": comparison["winner"]["loss"], "winner_seed": comparison["winner"]["seed"]})
        run.log_params({"recommended": comparison["recommended"]["loss"], "verdict": comparison["claim"]["verdict"]})
        for loss, entry in comparison["losses"].items():
            run.log_metrics({f"{loss}/{name}": value["mean"] for name, value in entry["metrics"].items()})
        run.log_artifacts(out)
        run.describe_pipeline(comparison["advice"])
    return comparison


def _facts(look: Look, dataset: Mapping[str, Any] | None, tracking: Tracking) -> RunFacts:
    """How often the test split was looked at, here and as far as MLflow knows, and how long a training takes."""
    from raregrade.evaluation.comparison_page import RunFacts
    from raregrade.evaluation.looks import ledger_file, record
    from raregrade.tracking.looks import logged_looks, minutes_of_training

    elsewhere = logged_looks(tracking, look.split)
    minutes = minutes_of_training(tracking, dataset["content_hash"]) if dataset else None
    try:
        return RunFacts(record(look, ledger_file(), elsewhere), minutes)
    except WriteError as err:
        _logger.warning("%s Looks at the test split are counted without this machine's ledger.", err)
    return RunFacts(len(elsewhere | {look.identity}) if tracking.enabled else None, minutes)
