"""Workers: processes that take trials of the studies of a plan until none is left, and the one that watches them.

Workers know nothing of one another; they meet in the storage. The one that watches starts another where one dies, and
it may die itself: then its workers stop, and running the command again goes on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from types import FrameType
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from raregrade.errors import ConfigError, InterruptedRunError, RaregradeError, UserError
from raregrade.tracking.studies import StudyLog, open_study_log
from raregrade.tuning.plan import TunePlan
from raregrade.tuning.progress import StudyProgress, say
from raregrade.tuning.storage import SharedStorage, is_sqlite, open_storage
from raregrade.tuning.study import (
    BROKE_OFF,
    StudyPlan,
    best_trials,
    claim,
    counts,
    delete_study,
    give_back,
    open_study,
)
from raregrade.tuning.trial import interrupted, run_trial

_POLL_SECONDS = 0.5
_STOP_SECONDS = 120.0  # a worker that is asked to stop saves first
_AGAIN = "run the same command again to go on"


@dataclass(frozen=True)
class _Open:
    """A study at work."""

    plan: StudyPlan
    study: optuna.Study


def work(plan: TunePlan) -> int:
    """Finish trials of ``plan`` until its searches and confirmations are done; how many this worker finished.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM arrived.
        UserError: the storage cannot be used (any more).
    """
    shared = open_storage(plan.storage)
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        with _quiet_optuna(), shared.alive(worker):
            log = open_log(shared, plan)
            searches = open_searches(shared, plan)
            finished = _finish(plan, shared, searches, worker, log)
            confirmations = _open_all(shared, plan, confirmation_plans(searches, plan))
            return finished + _finish(plan, shared, confirmations, worker, log)
    except StorageInternalError as err:
        raise UserError(
            f"tune.storage: {shared.name} no longer answers: {str(err.__cause__ or err).splitlines()[0]}. "
            f"Nothing that is finished is lost; once it is back, {_AGAIN}."
        ) from err


def confirmation_plans(searches: list[_Open], plan: TunePlan) -> list[StudyPlan]:
    """The confirmations that the outcome of finished ``searches`` asks for, each once."""
    best = [best_trials(search.study, search.plan.trials)[0].params for search in searches]
    arms = plan.confirmations(best[0], best[1] if len(best) > 1 else None)
    return list({arm.name: arm for arm in arms.values()}.values())


def open_searches(shared: SharedStorage, plan: TunePlan) -> list[_Open]:
    """The studies of ``plan`` that look for parameters."""
    return _open_all(shared, plan, plan.searches)


def _open_all(shared: SharedStorage, plan: TunePlan, studies: Iterable[StudyPlan]) -> list[_Open]:
    retries = plan.storage.retries
    return [_Open(study, open_study(shared, study, retries=retries)) for study in studies]


def start_anew(plan: TunePlan) -> None:
    """Throw the studies of ``plan`` away.

    Raises:
        RaregradeError: a living worker is at work on one.
    """
    shared = open_storage(plan.storage)
    with _quiet_optuna():
        searches = open_searches(shared, plan)
        done = all(counts(search.study).complete and not counts(search.study).open for search in searches)
        confirmations = confirmation_plans(searches, plan) if done else []
        for study in (*plan.searches, *confirmations):
            delete_study(shared, study)


def run_workers(plan: TunePlan, number: int) -> None:
    """Work on ``plan`` with ``number`` processes until it is done; with one, nothing: the caller works itself.

    Raises:
        UserError: more than one worker on sqlite; whatever a worker raised.
        InterruptedRunError: SIGINT or SIGTERM arrived; the workers have saved and stopped.
    """
    if number > 1 and is_sqlite(plan.storage.url):
        raise ConfigError(
            f"tune.storage: sqlite locks the whole file for every write, and {number} workers would fail on it under "
            "load. Leave tune.storage out (a journal file), name a Postgres, or set tune.workers=1."
        )
    # What is wrong with the storage is said once, by this process, and the study is there before anybody works on it.
    shared = open_storage(plan.storage)
    with _quiet_optuna():
        searches = open_searches(shared, plan)
        if number > 1 and any(counts(search.study).open for search in searches):
            _Crew(plan, number, shared, searches).run()


def _finish(plan: TunePlan, shared: SharedStorage, studies: list[_Open], worker: str, log: StudyLog) -> int:
    """Take trials of ``studies``, the first one's first, until all are finished."""
    finished = 0
    progress = StudyProgress(plan)
    while True:
        taken = _take(plan, shared, studies, worker)
        if taken is not None:
            item, trial = taken
            started = time.monotonic()
            state = _carry_out(plan, shared, item, trial, log)
            others = [other.study for other in studies if other is not item]
            seconds = time.monotonic() - started
            progress.finished(item.plan, item.study, trial.number, state=state, seconds=seconds, others=others)
            finished += state != TrialState.FAIL
        elif any(counts(item.study).open for item in studies):
            time.sleep(_POLL_SECONDS)  # others are at work; one of them may die
        else:
            return finished


def _take(
    plan: TunePlan, shared: SharedStorage, studies: list[_Open], worker: str
) -> tuple[_Open, optuna.Trial] | None:
    for item in studies:
        trial = claim(shared, item.study, item.plan, worker, retries=plan.storage.retries)
        if trial is not None:
            return item, trial
    return None


def _carry_out(
    plan: TunePlan, shared: SharedStorage, item: _Open, trial: optuna.Trial, study_log: StudyLog
) -> TrialState:
    """Run ``trial``: COMPLETE or PRUNED, or FAIL where another worker has taken it over."""
    log = study_log.trial(f"{item.plan.name} trial {trial.number}", trial.user_attrs.get("run_id"))
    try:
        if log.run_id is not None:
            trial.set_user_attr("run_id", log.run_id)
        with shared.beating(trial._trial_id):
            return run_trial(plan, item.plan, trial, log)
    except UpdateFinishedTrialError:
        return TrialState.FAIL
    except BaseException as err:
        give_back(shared, trial, item.plan, _reason(err))
        log.close("INTERRUPTED" if interrupted(err) else "FAIL", _reason(err))
        raise


def _reason(err: BaseException) -> str:
    """Why a worker gives a trial back. Only what nobody foresaw counts as a death of the trial."""
    if interrupted(err):
        return "interrupted"
    return f"broke off: {err}" if isinstance(err, RaregradeError) else f"{BROKE_OFF}{type(err).__name__}: {err}"


def open_log(shared: SharedStorage, plan: TunePlan) -> StudyLog:
    """The run that the trials lie under; the first worker to ask makes it."""
    if not plan.tracking.enabled:
        return StudyLog()
    with shared.lock(f"{plan.search.name} log"):
        study = optuna.create_study(
            study_name=plan.search.name,
            storage=shared.storage,
            direction=plan.search.direction,
            load_if_exists=True,
        )
        log = open_study_log(
            plan.tracking,
            f"tune {plan.section.loss.name}",
            study=plan.search.name,
            data=plan.identity,
            known=study.user_attrs.get("run_id"),
        )
        if log.run_id != study.user_attrs.get("run_id"):
            study.set_user_attr("run_id", log.run_id)
    return log


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class _Crew:
    """Worker processes under watch."""

    def __init__(self, plan: TunePlan, number: int, shared: SharedStorage, searches: list[_Open]) -> None:
        self.plan = plan
        self.number = number
        self.shared = shared
        self.searches = searches
        self.context = multiprocessing.get_context("spawn")
        self.members: dict[Any, connection.Connection] = {}
        self.deaths = 0  # since a trial was finished last
        self.finished = 0

    def run(self) -> None:
        """Until every worker has come to the end of the work.

        Raises:
            RaregradeError: what a worker raised, or workers that die over and over.
            InterruptedRunError: this process was asked to stop.
        """
        handler = _raise_on_terminate()
        try:
            for _ in range(self.number):
                self._start()
            while self.members:
                connection.wait([member.sentinel for member in self.members], timeout=1.0)
                for member in [m for m in self.members if not m.is_alive()]:
                    self._bury(member)
        except KeyboardInterrupt as err:
            raise InterruptedRunError(f"interrupted; {_AGAIN}") from err
        finally:
            self._stop_all()
            signal.signal(signal.SIGTERM, handler)

    def _start(self) -> None:
        receiver, sender = self.context.Pipe(duplex=False)
        member = self.context.Process(target=_worker_main, args=(self.plan, self.number, sender), name="tune-worker")
        member.start()
        sender.close()
        self.members[member] = receiver

    def _bury(self, member: Any) -> None:
        """A worker has ended: done, in error, or killed; in the last case another one goes on with its trial."""
        receiver = self.members.pop(member)
        with receiver:
            problem = _received(receiver)
        member.join()
        if member.exitcode == 0:
            return
        if problem is not None:
            raise problem
        finished = self._finished()
        self.deaths = 1 if finished > self.finished else self.deaths + 1
        self.finished = max(self.finished, finished)
        # By then a trial that kills its workers is given up, whichever of them it met.
        if self.deaths > (self.plan.storage.retries + 1) * self.number:
            raise RaregradeError(
                f"workers died {self.deaths} times while no trial was finished (the last with exit code "
                f"{member.exitcode}). Most often memory ran out: take fewer workers (--workers), and run again."
            )
        cause = f"by signal {-member.exitcode}" if member.exitcode < 0 else f"with exit code {member.exitcode}"
        say(f"a worker ended {cause}; another one takes its place")
        self._start()

    def _finished(self) -> int:
        """Trials that are behind the searches, and behind their confirmations once these are what is left."""
        studies = [search.study for search in self.searches]
        if not any(counts(study).open for study in studies):
            with _quiet_optuna():
                plans = confirmation_plans(self.searches, self.plan)
                studies += [item.study for item in _open_all(self.shared, self.plan, plans)]
        return sum(counts(study).finished for study in studies)

    def _stop_all(self) -> None:
        """Ask the workers that are left to save and stop, and wait until they have."""
        for member in self.members:
            if member.is_alive():
                member.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for member in self.members:
            member.join(max(0.1, deadline - time.monotonic()))
            if member.is_alive():
                member.kill()
                member.join()
        self.members.clear()


def _received(receiver: connection.Connection) -> RaregradeError | None:
    """What a worker that has ended has said; None where it said nothing."""
    try:
        problem = receiver.recv() if receiver.poll() else None
    except EOFError:
        return None
    return problem if isinstance(problem, RaregradeError) else None


def _worker_main(plan: TunePlan, workers: int, problem: connection.Connection) -> None:
    """The main function of a worker process: work, and hand an error of its own to the process that watches."""
    signal.signal(signal.SIGTERM, _interrupt)
    _stop_with_parent()
    _share_device(workers)
    logging.basicConfig(level=logging.WARNING)
    try:
        work(plan)
    except (InterruptedRunError, KeyboardInterrupt):
        sys.exit(InterruptedRunError.exit_code)
    except RaregradeError as err:
        problem.send(_sendable(err))
        sys.exit(err.exit_code)


def _sendable(err: RaregradeError) -> RaregradeError:
    """``err`` without its cause and traceback, which need not survive a pipe."""
    return type(err)(str(err))


def _stop_with_parent() -> None:
    """Ask this process to stop when the one that started it is gone, however that went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        # A worker that cannot even save must not go on for days in a study that others continue.
        time.sleep(_STOP_SECONDS)
        os._exit(InterruptedRunError.exit_code)

    threading.Thread(target=watch, daemon=True).start()


def _share_device(workers: int) -> None:
    """Give a worker its share of the GPU's memory, so that one that needs more fails and not its neighbours."""
    import torch  # noqa: PLC0415 - the watching process needs none of it

    if workers > 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1.0 / workers)


def _raise_on_terminate() -> Any:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does; returns the handler that was there."""
    if threading.current_thread() is not threading.main_thread():
        return signal.getsignal(signal.SIGTERM)
    return signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise KeyboardInterrupt
