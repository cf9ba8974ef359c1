"""What a person sees: lines in a log, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from raregrade.training.progress import TrainingProgress

START = {"images": 640, "device": "cpu", "precision": "float32"}


def row(epoch: int, **more: float) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": 1.23456, "lr": 5e-4, "val_qwk": 0.61} | more


def test_a_log_has_one_line_an_epoch_with_everything_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("ce seed 1", "qwk") as progress:
        progress.started(resumed_at=0, epochs=4, processes=1, **START)
        for epoch in range(2):
            for step in range(1, 11):
                progress.step(epoch, step, 10, 64, 1.2)
            progress.epoch(row(epoch + 1), best=epoch == 0)
        progress.note("stopped early: qwk has not improved for 2 epochs [0]")
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "ce seed 1: 640 images, 4 epochs on cpu in float32"
    pattern = (
        r"ce seed 1: epoch 1/4  loss 1\.2346  val qwk 0\.6100 \(best\)  lr 5\.00e-04  \d+ images/s  "
        r"\d:\d\d:\d\d left  peak \d+\.\d+ [MG]B"
    )
    assert re.fullmatch(pattern, lines[1])
    assert "(best)" not in lines[2]
    assert lines[3] == "ce seed 1: stopped early: qwk has not improved for 2 epochs [0]"
    assert len(lines) == 4


def test_a_resumed_run_and_several_processes_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("ce seed 1", "qwk") as progress:
        progress.started(resumed_at=3, epochs=4, processes=2, **START)
    assert capfd.readouterr().err == (
        "ce seed 1: 640 images, 4 epochs on cpu in 2 processes in float32, resumed after epoch 3\n"
    )


def test_the_time_left_counts_the_epochs_of_this_process_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("raregrade.training.progress.time.monotonic", lambda: now[0])
    with TrainingProgress("ce", "qwk") as progress:
        progress.started(resumed_at=6, epochs=10, processes=1, **START)
        for step in range(1, 11):
            now[0] += 5.0
            progress.step(6, step, 10, 64, None)
        now[0] += 10.0  # validation
        progress.epoch(row(7), best=False)
    line = capfd.readouterr().err.splitlines()[1]
    assert "  13 images/s  " in line  # 640 images in 50 s: validation does not count
    assert "  0:03:00 left  " in line  # three epochs of 60 s


def test_a_stage_without_training_has_a_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("two_stage", "qwk") as progress:
        progress.started(resumed_at=0, epochs=1, processes=1, **START)
        progress.epoch({"epoch": 1, "val_qwk": 0.7}, best=True)
    assert "two_stage: epoch 1/1  val qwk 0.7000 (best)" in capfd.readouterr().err


_ON_A_TERMINAL = """
import time
from raregrade.training.progress import TrainingProgress
with TrainingProgress("ce seed 1", "qwk") as progress:
    progress.started(resumed_at=1, epochs=3, images=640, device="cpu", precision="float32", processes=1)
    progress.restored([{"epoch": 1, "train_loss": 2.0, "lr": 1e-3, "val_qwk": 0.42}])
    for epoch in (1, 2):
        for step in range(1, 11):
            time.sleep(0.05)
            progress.step(epoch, step, 10, 64, 1.5 - 0.01 * step)
        progress.epoch({"epoch": epoch + 1, "train_loss": 1.4, "lr": 1e-3, "val_qwk": 0.55}, best=epoch == 1)
"""


@pytest.mark.slow
def test_a_terminal_has_a_bar_with_loss_metric_speed_time_and_memory() -> None:
    main, side = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    with subprocess.Popen([sys.executable, "-c", _ON_A_TERMINAL], stdout=side, stderr=side, env=environment) as child:
        os.close(side)
        shown = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(main)
    assert child.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    bar = r"epoch 2/3 .*━.* loss 1\.\d{3}  qwk 0\.420  \d+ images/s  0:00:0\d left  peak [\d.]+ [MG]B"
    assert re.search(bar, text), text
    assert re.search(r"epoch 3/3 .*━.* qwk 0\.550", text), text
    assert "ce seed 1: epoch 2/3  loss 1.4000  val qwk 0.5500 (best)" in text
