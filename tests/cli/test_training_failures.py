"""Disks that are full or read-only, and too little memory: one message, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disks import small_disk

Command = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.slow


def train(prepared: Path, out: str, *more: str) -> list[str]:
    return ["train", "--data", str(prepared / "prepared"), "--loss", "ce", "--out", out, *more]


def test_a_model_folder_that_cannot_be_written_is_found_out_before_training(
    run: Command, prepared: Path, project: Path
) -> None:
    with small_disk(project / "disk", "ro"):
        for arguments in (train(prepared, "disk/model"), train(prepared, "model", "--checkpoints", "disk/kept")):
            result = run(*arguments)
            assert result.returncode == 2
            assert result.stderr.count("\n") == 1
            assert result.stderr.startswith("raregrade: cannot write disk/")
            assert "Read-only file system" in result.stderr
    assert not (project / "model").exists()


def test_a_disk_that_fills_up_keeps_the_finished_training_and_the_same_command_only_writes_it(
    run: Command, prepared: Path, project: Path
) -> None:
    command = train(prepared, "disk/model", "--checkpoints", "kept")
    with small_disk(project / "disk", "size=8m") as disk:
        result = run(*command)
        assert result.returncode == 2, result.stderr
        message = result.stderr.splitlines()[-1]
        assert message.startswith("raregrade: cannot write disk/model: No space left on device (")
        assert "MB free" in message
        assert "The training is done and kept in kept/" in message
        assert list(disk.iterdir()) == []
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert "resumed after epoch 1" in result.stderr
    assert "epoch 1/1" not in result.stderr
    assert json.loads((project / "disk" / "model" / "model.json").read_text())["selection"]["epoch"] == 1
    assert list((project / "kept").rglob("state-*")) == []


def test_a_disk_without_room_for_checkpoints_is_found_out_before_training(
    run: Command, prepared: Path, project: Path
) -> None:
    with small_disk(project / "disk", "size=8m"):
        result = run(*train(prepared, "model", "--checkpoints", "disk/kept"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("raregrade: cannot write disk/kept/")
    assert "epoch 1/1" not in result.stderr
    assert not (project / "model").exists()


# The disk has room as training begins, and others fill it then.
_FILLED = """
import sys
from raregrade.cli.main import run
from raregrade.training.update import Updater
original = Updater.update
def update(self, batches, lr):
    try:
        with open("disk/of others", "ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        return original(self, batches, lr)
Updater.update = update
sys.exit(run(sys.argv[1:]))
"""


def test_where_nothing_could_be_kept_the_model_is_put_where_there_is_room(prepared: Path, project: Path) -> None:
    (project / "elsewhere").mkdir()
    arguments = train(prepared, "disk/model", "--checkpoints", "disk/kept")
    with small_disk(project / "disk", "size=512m"):
        result = subprocess.run(
            [sys.executable, "-c", _FILLED, *arguments],
            cwd=project,
            env=os.environ | {"TMPDIR": str(project / "elsewhere")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 2
    assert "the checkpoint of" in result.stderr
    assert "could not be kept in disk/kept/" in result.stderr
    (rescued,) = (project / "elsewhere").glob("raregrade-model-*")
    assert f"The model was written to {rescued} instead" in result.stderr
    assert {path.name for path in rescued.iterdir()} == {
        "curves.png",
        "history.csv",
        "model.json",
        "weights.safetensors",
    }


_LIMITED = """
import resource, sys
from raregrade.cli.main import run
from raregrade.training.update import Updater
original = Updater.update
def update(self, batches, lr):
    size = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (size + 10_000_000,) * 2)
    return original(self, batches, lr)
Updater.update = update
sys.exit(run(sys.argv[1:]))
"""


def test_a_batch_that_does_not_fit_is_named_with_one_that_does(prepared: Path, project: Path) -> None:
    arguments = train(prepared, "model", "--set", "train.stem=small", "--set", "train.backbone=resnet18")
    result = subprocess.run(
        [sys.executable, "-c", _LIMITED, *arguments], cwd=project, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    message = result.stderr.splitlines()[-1]
    assert message.startswith("raregrade: this machine has too little memory for 30 images at once")
    assert "train.batch_size = 32" in message
    assert "Traceback" not in result.stderr
    assert not (project / "model").exists()
