"""What a study costs beside the training: milliseconds a trial of claiming, suggesting, reporting and finishing.

Trials go through raregrade's own ``claim`` and ``run_trial``; ``fit`` is replaced by five epochs that cost nothing and
report a value each, every trial better than the one before, so that none is stopped. What is counted is a worker's
time from its first claim to its last trial's end, by the trials that it finished; opening the storage is not.
Postgres is a real one, started for the measurement on this machine, without waiting for its disk.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tuning_record import TASKS
from tuning_replay import make_product_plan

from raregrade.config import StudyStorage
from raregrade.tracking.studies import TrialLog
from raregrade.tuning import trial as trials
from raregrade.tuning.plan import TunePlan
from raregrade.tuning.storage import open_storage
from raregrade.tuning.study import StudyPlan, claim, open_study

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 5
# Storage and number of workers, with the bar in milliseconds a trial.
BARS = {("journal", 1): 30, ("journal", 3): 30, ("Postgres", 1): 120, ("Postgres", 4): 400}


def measure_overhead(trials_each: int) -> bool:
    """Measure, print a table, and return whether every bar holds."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_product_plan(TASKS["lmf"], Path(folder) / "data", EPOCHS, trials=trials_each, repeats=1)
        print(f"{os.cpu_count()} cores, {trials_each} trials of {EPOCHS} reports\n")
        print("| storage | workers | ms a trial | bar |\n|---|---|---|---|")
        holds = True
        for (kind, workers), bar in BARS.items():
            with _storage(kind, Path(folder)) as url:
                cost = _measure(plan, StudyStorage(url=url), workers)
            print(f"| {kind} | {workers} | {cost:.0f} | ≤ {bar} |", flush=True)
            holds &= cost <= bar
    return holds


@contextmanager
def _storage(kind: str, folder: Path) -> Iterator[str]:
    """The address of a new storage."""
    if kind == "journal":
        yield str(folder / f"{uuid.uuid4().hex}.log")
        return
    sys.path.insert(0, str(ROOT))
    from tests.servers import postgres_server  # noqa: PLC0415 - needs pytest, and the journal does not

    with postgres_server() as postgres:
        postgres.create_database("studies")
        yield postgres.url("studies", driver="postgresql+psycopg2")


def _measure(plan: TunePlan, storage: StudyStorage, workers: int) -> float:
    """Milliseconds a trial, the mean over all workers' trials."""
    search = replace(plan.search, name=uuid.uuid4().hex, starts=())
    open_study(open_storage(storage), search)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(workers), context.Queue()
    members = [
        context.Process(target=_work, args=(plan, search, storage, start, results), daemon=True) for _ in range(workers)
    ]
    for member in members:
        member.start()
    try:
        done = [results.get(timeout=600) for _ in members]
    finally:
        for member in members:
            member.join(timeout=30)
            member.kill()
    finished = sum(count for count, _ in done)
    if finished != search.trials:
        raise RuntimeError(f"{finished} trials were finished, {search.trials} were asked for")
    spent: float = sum(seconds for _, seconds in done)
    return 1000 * spent / int(finished)


def _work(plan: TunePlan, search: StudyPlan, storage: StudyStorage, start: Any, results: Any) -> None:
    """One worker: take trials until none is left; how many, and how long that took."""
    shared = open_storage(storage)
    values = itertools.count(1)

    def cost_nothing(section: Any, dataset: Any, *, metric: str, reporter: Any, **_: Any) -> Any:
        del dataset
        value = time.time() + next(values)
        for epoch in range(1, section.train.epochs + 1):
            reporter.epoch({"epoch": epoch, f"val_{metric}": value}, best=epoch == 1)
        return SimpleNamespace(best_value=value, best_epoch=1, history=[{}] * section.train.epochs)

    worker, count = uuid.uuid4().hex, 0
    with mock.patch.object(trials, "fit", cost_nothing), shared.alive(worker):
        study = open_study(shared, search)
        start.wait(timeout=300)
        began = time.monotonic()
        while (trial := claim(shared, study, search, worker, retries=0)) is not None:
            with shared.beating(trial._trial_id):
                trials.run_trial(plan, search, trial, TrialLog())
            count += 1
        results.put((count, time.monotonic() - began))
