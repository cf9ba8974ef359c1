"""Running a pipeline on this machine through kfp.local, each task in a process of its own.

kfp decides what runs when and with which inputs. Starting a task is done here, in place of kfp's own
function, so that every task has a log of its own, the terminal shows what matters, the first failure
starts nothing more, and an interrupt ends the processes.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kfp import local
from kfp.local import config as local_config
from kfp.local import subprocess_task_handler

from raregrade.errors import InterruptedRunError, RaregradeError
from raregrade.steps.kubeflow import CHECKPOINTS_VARIABLE, GROUP_VARIABLE

_EXECUTOR_LINE = re.compile(r"^\[KFP Executor [^\]]*\]: (.*)$")
_OWN_ERROR = re.compile(r"^raregrade\.errors\.\w+: ")
_EXECUTOR_CHATTER = ("Looking for component", "Loading KFP component", "Wrote executor output", "Did not write output")


@dataclass(frozen=True)
class LocalRun:
    """Where the outputs of a finished run lie: all tasks, the comparison, the folder of ``registered.json``."""

    folder: Path
    comparison: Path
    registration: Path


def run_in_subprocesses(
    pipeline: Any,
    arguments: dict[str, Any],
    *,
    root: Path,
    group: str,
    checkpoints: Path,
    report: Callable[[str], None],
) -> LocalRun:
    """Run ``pipeline``, at most two tasks at a time, in the Python and the working directory of this process.

    Args:
        pipeline: a ``kfp.dsl`` graph component.
        arguments: its arguments.
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
    tasks = _Tasks({GROUP_VARIABLE: group, CHECKPOINTS_VARIABLE: str(checkpoints.resolve())}, report)
    orchestrator_log = root / f"{group}.log"
    with orchestrator_log.open("w", encoding="utf-8") as log, _kfp_set_up(root, tasks, log), _interrupts(tasks):
        try:
            outputs = pipeline(**arguments).outputs
        except KeyboardInterrupt as err:
            raise InterruptedRunError(
                "interrupted, and the running tasks were stopped. The same command starts a new run, "
                "which continues unfinished trainings."
            ) from err
        except RuntimeError as err:
            raise RaregradeError(tasks.failure or f"kfp.local gave up: {err}. See {orchestrator_log}.") from err
    registration = Path(outputs["registration"].path)
    return LocalRun(registration.parents[1], Path(outputs["comparison"].path), registration)


class _Tasks:
    """Starts tasks and knows those that run. Its methods are called from several threads."""

    def __init__(self, environment: dict[str, str], report: Callable[[str], None]) -> None:
        self.environment = environment
        self.report = report
        self.failure = ""
        self.stopped = threading.Event()
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()

    def run(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run one task and return its exit code. Takes the place of kfp's ``run_local_subprocess``."""
        executor_input = json.loads(full_command[full_command.index("--executor_input") + 1])
        folder = Path(executor_input["outputs"]["outputFile"]).parent
        folder.mkdir(parents=True, exist_ok=True)
        label = _label(folder.name, executor_input["inputs"])
        log_path = folder / "log.txt"
        process = self._start(full_command, env_vars or {})
        if process is None:
            return 1
        self.report(f"{label}: started")
        since = time.monotonic()
        try:
            last_words = self._follow(process, log_path, label)
            code = process.wait()
        finally:
            with self.lock:
                self.running.discard(process)
        seconds = time.monotonic() - since
        if code == 0:
            self.report(f"{label}: done in {seconds:.1f} s")
            return 0
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
        for process in list(self.running):
            _terminate(process)

    def _start(self, full_command: list[str], env_vars: dict[str, str]) -> subprocess.Popen[str] | None:
        with self.lock:
            if self.stopped.is_set():
                return None
            process = subprocess.Popen(
                full_command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                bufsize=1,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment, **env_vars},
                start_new_session=True,
            )
            self.running.add(process)
        if self.stopped.is_set():  # since the check above; `stop` may have missed this process
            _terminate(process)
        return process

    def _follow(self, process: subprocess.Popen[str], log_path: Path, label: str) -> str:
        """Copy the output to the log, report what the task itself says, and return its error message or last line."""
        last = ""
        message: list[str] | None = None  # what follows the frames of a traceback
        in_dump = False  # of the executor's input, many lines of JSON
        assert process.stdout is not None
        with log_path.open("w", encoding="utf-8") as log:
            for raw in process.stdout:
                log.write(raw)
                log.flush()
                line = raw.rstrip()
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


def _label(component: str, inputs: dict[str, Any]) -> str:
    """``train-model ce seed 1``: the task, and which loss and seed where it works on one."""
    run = inputs.get("parameterValues", {}).get("run")
    if run is None:
        models = inputs.get("artifacts", {}).get("model", {}).get("artifacts", [{}])
        run = models[0].get("metadata", {})
    if "loss" not in run or "seed" not in run:
        return component
    return f"{component} {run['loss']} seed {int(run['seed'])}"


def _terminate(process: subprocess.Popen[str]) -> None:
    """End a task: the shell that kfp starts, and the Python under it, are one process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


@contextlib.contextmanager
def _kfp_set_up(root: Path, tasks: _Tasks, log: Any) -> Iterator[None]:
    """Initialise kfp.local for one run and put everything it changes in this process back afterwards.

    Its threads exchange ``print`` and the handlers of the root logger without a lock.
    """
    root_logger = logging.getLogger()
    handlers, level, printer = root_logger.handlers[:], root_logger.level, builtins.print
    run_local_subprocess = subprocess_task_handler.run_local_subprocess
    with contextlib.redirect_stdout(log), warnings.catch_warnings():
        # "You may be attempting to run a task that uses a non-Python base image": the image is not used here.
        warnings.filterwarnings("ignore", module=r"kfp\.")
        subprocess_task_handler.run_local_subprocess = tasks.run
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
        try:
            yield
        finally:
            subprocess_task_handler.run_local_subprocess = run_local_subprocess
            local_config.LocalExecutionConfig.instance = None
            root_logger.handlers[:], builtins.print = handlers, printer
            root_logger.setLevel(level)


@contextlib.contextmanager
def _interrupts(tasks: _Tasks) -> Iterator[None]:
    """End the tasks on SIGINT and SIGTERM: they run in sessions of their own and would not hear of them."""

    def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        tasks.stop()
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
