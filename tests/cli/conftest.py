"""The command as users have it, and a project small enough to run it on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

PROGRAM = str(Path(sys.executable).with_name("raregrade"))
Command = Callable[..., "subprocess.CompletedProcess[str]"]

PARAMS = {
    "phantom": {"patients": 40, "max_images_per_patient": 2, "image_size": 16},
    "data": {
        "source": "phantom",
        "path": "raw",
        "task": "ordinal",
        "classes": ["none", "mild", "moderate", "severe"],
        "image_size": 16,
        "split": {"val": 0.25, "test": 0.25},
    },
    "train": {"epochs": 1, "threads": 1, "precision": "float32"},
    "losses": {"ce": {}, "cdw_ce": {"power": 2.0}},
    "compare": {"losses": ["ce", "cdw_ce"], "seeds": [1], "baseline": "ce"},
    "alarms": {"refuse": False},  # after one epoch a model misses grades
    "register": {"name": "severity"},
    "tracking": {"uri": "none"},
}


def raregrade(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in ``cwd`` and return its exit code and what it printed."""
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def interrupt(arguments: list[str], cwd: Path, number: signal.Signals, once: Callable[[str], bool]) -> tuple[int, str]:
    """Start the command, send it a signal when ``once(stderr so far)`` holds, and return exit code and stderr."""
    log = cwd / "stderr.log"
    with log.open("w") as stderr, subprocess.Popen([PROGRAM, *arguments], cwd=cwd, stderr=stderr) as process:
        deadline = time.monotonic() + 120
        while not once(log.read_text()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        code = process.wait(timeout=120)
    return code, log.read_text()


@pytest.fixture
def run(project: Path) -> Command:
    """``run("prepare", "--out", "prepared")`` in the folder of ``project``."""

    def run_here(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return raregrade(*arguments, cwd=project, **environment)

    return run_here


@pytest.fixture
def stop() -> Callable[..., tuple[int, str]]:
    return interrupt


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a params.yaml, and nothing else."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    return tmp_path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its prepared dataset in ``prepared``. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("prepared-project")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    for arguments in (["phantom", "--out", "raw"], ["prepare", "--out", "prepared"]):
        result = raregrade(*arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def trained(prepared: Path) -> Path:
    """The same project with two models below ``models`` and their reports below ``reports``."""
    for loss in ("ce", "cdw_ce"):
        model, report = f"models/{loss}/1", f"reports/{loss}/1"
        for arguments in (
            ["train", "--data", "prepared", "--loss", loss, "--seed", "1", "--out", model],
            ["evaluate", "--model", model, "--data", "prepared", "--out", report],
        ):
            result = raregrade(*arguments, cwd=prepared)
            assert result.returncode == 0, result.stderr
    return prepared
