"""Each task in a process of its own, in the Python and the working directory of this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import subprocess_task_handler

from raregrade.kubeflow.local_run import LocalRun, Report, RunTask, run_pipeline


def run_in_subprocesses(
    pipeline: Any, arguments: dict[str, Any], *, root: Path, group: str, checkpoints: Path, report: Report
) -> LocalRun:
    """``run_pipeline`` in processes."""
    return run_pipeline(
        pipeline, arguments, _Processes(), root=root, group=group, checkpoints=checkpoints, report=report
    )


class _Process:
    """A task in a process of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            env=environment,
            start_new_session=True,
        )

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        yield from self._process.stdout

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> None:
        """The shell that kfp starts, and the Python under it, are one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def close(self) -> None:
        if self._process.poll() is None:
            self.stop()
        self._process.communicate()  # to its very end: a training that was stopped still saves its checkpoint


class _Processes:
    """Starts tasks as processes."""

    @contextlib.contextmanager
    def taking_over(self, run: RunTask) -> Iterator[local.SubprocessRunner]:
        def run_local_subprocess(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
            return run(full_command, env_vars or {})

        own = subprocess_task_handler.run_local_subprocess
        subprocess_task_handler.run_local_subprocess = run_local_subprocess
        try:
            yield local.SubprocessRunner(use_venv=False)
        finally:
            subprocess_task_handler.run_local_subprocess = own

    def start(self, command: list[str], environment: dict[str, str]) -> _Process:
        return _Process(command, {**os.environ, **environment})
