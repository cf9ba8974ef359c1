"""``kill -9`` at any moment: the run that is started again ends with the very files of a run that was left alone."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raregrade.config import load_params, section
from raregrade.data.manifest import PreparedDataset
from raregrade.steps.evaluate import evaluate
from raregrade.tracking import Tracking

PARAMS = """\
data: {source: phantom, path: unused, task: ordinal, classes: [none, mild, moderate, severe], image_size: 32}
train:
  {backbone: test_efficientnet, epochs: 12, batch_size: 8, precision: float32, threads: 1, ema: 0.9, dropout: 0.2,
   gradient_clip: 1.0, schedule: plateau, lr_epochs: 1}
losses: {two_stage: {classifier_share: 0.5, metric: class_center}}
compare: {losses: [two_stage], seeds: [1], baseline: two_stage}
tracking: {uri: none}
"""


class Training:
    """``raregrade train`` in a folder of its own; checkpoints are written as fast as the disk takes them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        (folder / "params.yaml").write_text(PARAMS)
        self.command = [
            *(sys.executable, "-m", "raregrade", "train", "--data", str(data), "--loss", "two_stage"),
            *("--out", "model", "--checkpoints", "kept", "--checkpoint-minutes", "0"),
        ]
        self.log = ""

    @property
    def finished(self) -> bool:
        return (self.folder / "model/weights.safetensors").exists()

    def run(self) -> None:
        subprocess.run(self.command, cwd=self.folder, check=True, timeout=300)

    def kill_when(self, moment: Callable[[float], bool]) -> bool:
        """Start, and send SIGKILL once ``moment`` (seconds since the first checkpoint) holds; False if too late."""
        with (self.folder / "log").open("w+") as log:
            process = subprocess.Popen(self.command, cwd=self.folder, stderr=log)
            try:
                self._wait(process, lambda _: any((self.folder / "kept").glob("*/state-*.pt")))
                return self._wait(process, moment)
            finally:
                process.kill()
                process.wait()
                self.log = (self.folder / "log").read_text()

    def _wait(self, process: subprocess.Popen[bytes], moment: Callable[[float], bool]) -> bool:
        since = time.monotonic()
        while process.poll() is None and time.monotonic() - since < 120:
            if moment(time.monotonic() - since):
                return True
            time.sleep(0.001)
        return False

    def being_written(self, _seconds: float) -> bool:
        return any((self.folder / "kept").glob("*/.state-*"))

    def in_second_stage(self, _seconds: float) -> bool:
        epochs = re.findall(r"epoch (\d+)/12", (self.folder / "log").read_text())
        return bool(epochs) and int(epochs[-1]) >= 7


def metrics(training: Training, data: Path) -> bytes:
    out = training.folder / "report"
    evaluate(
        section(load_params(training.folder / "params.yaml"), "evaluate"),
        training.folder / "model",
        data,
        out,
        tracking=Tracking("none", "tests"),
    )
    return (out / "metrics.json").read_bytes()


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights_and_metrics(
    prepared: PreparedDataset, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Training(tmp_path / "whole", prepared.root)
    whole.run()

    killed = Training(tmp_path / "killed", prepared.root)
    first, second = random.uniform(0, 1), random.uniform(0, 1)
    moments: dict[str, Callable[[float], bool]] = {
        "while a checkpoint is written": killed.being_written,
        "at a random moment": lambda seconds: seconds > first,
        "at another one": lambda seconds: seconds > second,
        "in the second stage": killed.in_second_stage,
        "while a checkpoint of the second stage is written": killed.being_written,
    }
    for name, moment in moments.items():
        assert killed.kill_when(moment), f"the run ended before it could be killed {name}"
        assert not killed.finished, name
    killed.run()

    for name in ("weights.safetensors", "history.csv"):
        one, other = (training.folder / "model" / name for training in (whole, killed))
        assert one.read_bytes() == other.read_bytes(), name
    assert metrics(whole, prepared.root) == metrics(killed, prepared.root)
    assert not list(tmp_path.glob("*/kept/*/state-*")), "a finished run leaves no checkpoints"
