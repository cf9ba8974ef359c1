"""Step ``collect_study``: from a study to the parameters to train with, the table of trials, and the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raregrade.config import StudyStorage, TuneSection
from raregrade.steps.tune import CHECKPOINTS
from raregrade.tracking import Tracking
from raregrade.tuning import require_optuna


def collect_study(
    section: TuneSection,
    data: Path,
    out: Path,
    *,
    storage: StudyStorage,
    tracking: Tracking,
    checkpoints: Path | str | None = CHECKPOINTS,
) -> dict[str, Any]:
    """Write the folder ``out`` from the study of ``section.loss``, doing first what its workers left undone.

    Args and files: as ``raregrade.steps.tune.tune``.

    Returns:
        The content of best.yaml: ``loss``, ``kind``, ``params`` and ``train`` (to train with), ``chosen`` (``tuned``
        or ``default``), ``better``, ``verdict`` (a sentence), ``objective``, ``trial``, ``study``, ``baseline``,
        ``confirmation``, ``top``, ``dataset``.

    Raises:
        UserError, InterruptedRunError: as ``tune``.
    """
    require_optuna()
    from raregrade.tuning.plan import make_plan
    from raregrade.tuning.result import write_result
    from raregrade.tuning.workers import work

    plan = make_plan(section, data, storage=storage, tracking=tracking, checkpoints=checkpoints)
    work(plan)
    return write_result(plan, out)
