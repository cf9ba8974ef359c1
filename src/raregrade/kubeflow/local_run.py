"""Running a pipeline on this machine through kfp.local: what is the same whether tasks are processes or containers.

kfp decides what runs when and with which inputs. Starting a task is done by a ``Launcher``, in place of
kfp's own function, so that every task has a log of its own, the terminal shows what matters, the first
failure starts nothing more, and an interrupt ends what runs. ``local_subprocess`` and ``local_docker``
hold the launchers.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from kfp import local
from kfp.local import config as local_config

from raregrade.errors import InterruptedRunError, RaregradeError
from raregrade.kubeflow.task_io import CHECKPOINTS_VARIABLE, GROUP_VARIABLE

_EXECUTOR_LINE = re.compile(r"^\[KFP Executor [^\]]*\]: (.*)$")
_OWN_ERROR = re.compile(r"^raregrade\.errors\.\w+: ")
_EXECUTOR_CHATTER = ("Looking for component", "Loading KFP component", "Wrote executor output", "Did not write output")
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)

Report = Callable[[str], None]
RunTask = Callable[[list[str], dict[str, str]], int]


@dataclass(frozen=True)
class LocalRun:
    """What a finished run left.

    Attributes:
        folder: one folder a task, with its outputs and ``log.txt``.
        outputs: where artifacts lie, by name: those that tasks outside of loops made, and those that the pipeline
            names as its own. A pipeline with an exit handler cannot name any.
    """

    folder: Path
    outputs: dict[str, Path]


class Task(Protocol):
    """A task that was started, as a process or in a container."""

    def lines(self) -> Iterator[str]:
        """What it writes, one line at a time, until it ends."""
        ...

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...

    def stop(self) -> None:
        """Ask it to end, and return at once. Takes no lock: a signal handler calls it."""
        ...

    def close(self) -> None:
        """Leave nothing of it behind, also where it has not ended."""
        ...


class Launcher(Protocol):
    """How tasks are started."""

    def taking_over(self, run: RunTask) -> AbstractContextManager[Any]:
        """While it lasts, kfp.local calls ``run`` for each task; gives the runner to initialise kfp.local with."""
        ...

    def start(self, command: list[str], environment: dict[str, str]) -> Task:
        """Start ``command`` with ``environment`` beside what tasks have anyway. Raises RaregradeError."""
        ...


def run_pipeline(
    pipeline: Any,
    arguments: dict[str, Any],
    launcher: Launcher,
    *,
    root: Path,
    group: str,
    checkpoints: Path,
    report: Report,
) -> LocalRun:
    """Run ``pipeline``, at most two tasks at a time.

    Args:
        pipeline: a ``kfp.dsl`` graph component.
        arguments: its arguments.
        launcher: starts its tasks.
        root: folder that gets one folder a run, with one folder a task that holds its outputs and ``log.txt``.
        group: the id of this run, the same for all its tasks.
        checkpoints: folder for interrupted trainings; another run continues them.
        report: called with one line at a time, also from other threads.

    Raises:
        RaregradeError: a task failed; names the task, its last words and its log.
        InterruptedRunError: SIGINT or SIGTERM arrived.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    environment = {
        GROUP_VARIABLE: group,
        CHECKPOINTS_VARIABLE: str(checkpoints.resolve()),
        "PYTHONUNBUFFERED": "1",
    }
    tasks = _Tasks(launcher, environment, root, report)
    orchestrator_log = root / f"{group}.log"
    with orchestrator_log.open("w", encoding="utf-8") as log, _kfp_set_up(tasks, log), _interrupts(tasks):
        try:
            named = pipeline(**arguments).outputs
        except KeyboardInterrupt as err:
            raise InterruptedRunError(
                "interrupted, and the running tasks were stopped. The same command starts a new run, "
                "which continues unfinished trainings."
            ) from err
        except RuntimeError as err:
            raise RaregradeError(tasks.failure or f"kfp.local gave up: {err}. See {orchestrator_log}.") from err
    own = {name: Path(value.path) for name, value in named.items() if hasattr(value, "path")}
    return LocalRun(tasks.folder, tasks.outputs | own)


class _Tasks:
    """Runs tasks and knows those that run. Its methods are called from several threads."""

    def __init__(self, launcher: Launcher, environment: dict[str, str], root: Path, report: Report) -> None:
        self.launcher = launcher
        self.environment = environment
        self.root = root
        self.folder = root  # of this run, known once its first task is
        self.report = report
        self.failure = ""
        self.outputs: dict[str, Path] = {}
        self.stopped = threading.Event()
        self.running: set[Task] = set()
        self.lock = threading.Lock()

    def run(self, full_command: list[str], env_vars: dict[str, str]) -> int:
        """Run one task and return its exit code. Takes the place of kfp's own function."""
        executor_input = json.loads(full_command[full_command.index("--executor_input") + 1])
        folder = Path(executor_input["outputs"]["outputFile"]).parent
        self.folder = self.root / folder.relative_to(self.root).parts[0]
        folder.mkdir(parents=True, exist_ok=True)
        label = _label(folder.name, executor_input["inputs"])
        log_path = folder / "log.txt"
        since = time.monotonic()
        try:
            task = self._start(full_command, env_vars, after_failure=_is_exit_task(executor_input))
            if task is None:
                return 1
            self.report(f"{label}: started")
            code, last_words = self._follow(task, log_path, label)
        except RaregradeError as err:
            log_path.touch()
            code, last_words = 1, str(err)
        seconds = time.monotonic() - since
        if code == 0:
            self.report(f"{label}: done in {seconds:.1f} s")
            if folder.parent == self.folder:
                self.outputs |= _artifacts(executor_input)
            return 0
        if code in _KILLED:
            last_words = f"killed, as the system does when memory runs out; its last words: {last_words or 'none'}"
        with self.lock:
            first = not self.failure and not self.stopped.is_set()
            if first:
                self.failure = f"task {label} failed: {last_words or f'exit code {code}'}\nIts log: {log_path}"
            self.stopped.set()
        if first:
            self.report(f"{label}: failed after {seconds:.1f} s")
        return code

    def stop(self) -> None:
        """Start nothing more and end what runs. Takes no lock: a signal handler calls it."""
        self.stopped.set()
        for task in list(self.running):
            task.stop()

    def _start(self, full_command: list[str], env_vars: dict[str, str], *, after_failure: bool) -> Task | None:
        with self.lock:
            wanted = after_failure and bool(self.failure)
            if self.stopped.is_set() and not wanted:
                return None
            task = self.launcher.start(full_command, {**self.environment, **env_vars})
            self.running.add(task)
        if self.stopped.is_set() and not wanted:  # since the check above; `stop` may have missed this task
            task.stop()
        return task

    def _follow(self, task: Task, log_path: Path, label: str) -> tuple[int, str]:
        """Follow the task until it ends; its exit code, and its error message or last line."""
        try:
            with log_path.open("w", encoding="utf-8") as log:
                last_words = self._listen(task, log, label)
            return task.wait(), last_words
        finally:
            with self.lock:
                self.running.discard(task)
            task.close()

    def _listen(self, task: Task, log: Any, label: str) -> str:
        """Copy the output to the log, report what the task itself says, and return its error message or last line."""
        last = ""
        message: list[str] | None = None  # what follows the frames of a traceback
        in_dump = False  # of the executor's input, many lines of JSON
        for raw in task.lines():
            line = raw.rstrip()
            log.write(f"{line}\n")
            log.flush()
            executor = _EXECUTOR_LINE.match(line)
            text = executor.group(1) if executor else line
            if in_dump:
                in_dump = line != "}"
            elif executor and text.startswith("Got executor_input"):
                in_dump = True
            elif line.startswith("Traceback (most recent call last)"):
                message = []
            elif message is not None:
                message += [line] if not line.startswith("  ") or message else []
            elif text.strip() and not (executor and text.startswith(_EXECUTOR_CHATTER)):
                last = text
                self.report(f"  {label} | {text}")
        return _OWN_ERROR.sub("", "\n".join(message)) if message else last


def _is_exit_task(executor_input: dict[str, Any]) -> bool:
    """Whether the task is told how the tasks before it ended, which is what makes it an exit handler's."""
    values = executor_input["inputs"].get("parameterValues", {}).values()
    return any(isinstance(value, dict) and {"state", "pipeline_task_name"} <= set(value) for value in values)


def _artifacts(executor_input: dict[str, Any]) -> dict[str, Path]:
    """Where the output artifacts of a task lie, by name."""
    made = executor_input["outputs"].get("artifacts", {})
    return {name: Path(value["artifacts"][0]["uri"]) for name, value in made.items()}


def _label(component: str, inputs: dict[str, Any]) -> str:
    """``train-model ce seed 1``: the task, and which loss, seed, fold or worker where it works on one."""
    values = inputs.get("parameterValues", {})
    if "worker" in values:
        return f"{component} {int(values['worker']['number'])}"
    run = values.get("run")
    if run is None:
        models = inputs.get("artifacts", {}).get("model", {}).get("artifacts", [{}])
        run = models[0].get("metadata", {})
    if "loss" not in run or "seed" not in run:
        return component
    tuned = " tuned" if run.get("tuned") else ""
    fold = f" fold {int(run['fold'])}" if "fold" in run else ""
    return f"{component} {run['loss']}{tuned} seed {int(run['seed'])}{fold}"


@contextlib.contextmanager
def _kfp_set_up(tasks: _Tasks, log: Any) -> Iterator[None]:
    """Initialise kfp.local for one run and put everything it changes in this process back afterwards.

    Its threads exchange ``print`` and the handlers of the root logger without a lock.
    """
    root_logger = logging.getLogger()
    handlers, level, printer = root_logger.handlers[:], root_logger.level, builtins.print
    with (
        contextlib.redirect_stdout(log),
        warnings.catch_warnings(),
        tasks.launcher.taking_over(tasks.run) as runner,
    ):
        # "You may be attempting to run a task that uses a non-Python base image": in a process it is not used.
        warnings.filterwarnings("ignore", module=r"kfp\.")
        local.init(runner, pipeline_root=str(tasks.root))
        try:
            yield
        finally:
            local_config.LocalExecutionConfig.instance = None
            root_logger.handlers[:], builtins.print = handlers, printer
            root_logger.setLevel(level)


@contextlib.contextmanager
def _interrupts(tasks: _Tasks) -> Iterator[None]:
    """End the tasks on SIGINT and SIGTERM, which do not reach them from here."""

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        tasks.stop()
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
