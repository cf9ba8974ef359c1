"""Step ``tune``: study the parameters of one loss, and say whether what it finds is better than what one has.

``tune`` does all of it with the workers of one machine. On a cluster each task calls ``tune_worker`` on one shared
database, and ``raregrade.steps.collect_study`` finishes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raregrade.config import StudyStorage, TuneSection
from raregrade.tracking import Tracking
from raregrade.tuning import require_optuna

CHECKPOINTS = Path(".raregrade/checkpoints")


def tune(
    section: TuneSection,
    data: Path,
    out: Path,
    *,
    storage: StudyStorage,
    workers: int = 1,
    fresh: bool = False,
    tracking: Tracking,
    checkpoints: Path | str | None = CHECKPOINTS,
) -> dict[str, Any]:
    """Run the study of ``section.loss`` to its end, or go on with it, and write the folder ``out``.

    Files: ``best.yaml`` (what is returned), ``trials.csv`` (one row per trial), ``figures``.

    Args:
        section: what ``config.section(params, "tune", loss)`` returns.
        data: a prepared dataset; its test split is out of reach.
        out: the folder; appears when the study is done, not before.
        storage: where the study is kept. The same section and data find it again there.
        workers: processes that train trials at the same time, on one device.
        fresh: throw the study away and start anew.
        tracking: where runs are logged.
        checkpoints: folder or ``s3://`` address for checkpoints of interrupted trials; None keeps none.

    Raises:
        UserError: a wrong space, objective or storage, a database that does not answer, a missing extra.
        InterruptedRunError: SIGINT or SIGTERM arrived; run again to go on.
    """
    require_optuna()
    from raregrade.steps.collect_study import collect_study
    from raregrade.tuning.plan import make_plan
    from raregrade.tuning.workers import run_workers, start_anew

    plan = make_plan(section, data, storage=storage, tracking=tracking, checkpoints=checkpoints)
    if fresh:
        start_anew(plan)
    run_workers(plan, workers)
    return collect_study(section, data, out, storage=storage, tracking=tracking, checkpoints=checkpoints)


def tune_worker(
    section: TuneSection,
    data: Path,
    *,
    storage: StudyStorage,
    tracking: Tracking,
    checkpoints: Path | str | None = CHECKPOINTS,
) -> dict[str, int]:
    """Work on the study of ``section.loss`` beside other workers, on this machine or others, until it is done.

    The study is created by the worker that comes first.

    Returns:
        How many trials this worker finished: ``{"trials": n}``.

    Raises:
        UserError: as ``tune``.
        InterruptedRunError: SIGINT or SIGTERM arrived; other workers take over the trial.
    """
    require_optuna()
    from raregrade.tuning.plan import make_plan
    from raregrade.tuning.workers import work

    plan = make_plan(section, data, storage=storage, tracking=tracking, checkpoints=checkpoints)
    return {"trials": work(plan)}
