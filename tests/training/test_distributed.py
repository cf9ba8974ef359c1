"""Two processes train as one does: the same batches, the same losses, the same metrics, one set of files."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import TrainConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import ConfigError
from raregrade.training.distributed import Processes, processes_of_environment, share
from raregrade.training.feed import TrainingFeed

SCRIPT = Path(__file__).with_name("fit_in_processes.py")
KINDS = ["ce", "weighted_ce", "focal", "cdw_ce", "two_stage"]


def torchrun(processes: int, *arguments: str | Path) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
        *map(str, arguments),
    ]


@given(world=st.integers(1, 8), each=st.integers(1, 9))
def test_the_shares_of_all_processes_are_the_batch_in_its_order(world: int, each: int) -> None:
    batch = np.random.default_rng(0).permutation(world * each)
    shares = [share(batch, Processes(rank, world)) for rank in range(world)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    assert {len(part) for part in shares} == {each}


@pytest.mark.parametrize(("rank", "world"), [("x", "2"), ("2", "2"), ("-1", "2")])
def test_an_environment_that_torchrun_cannot_have_made_is_refused(monkeypatch, rank: str, world: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ConfigError, match="start several processes by torchrun"):
        processes_of_environment()


def test_a_batch_that_does_not_divide_is_refused_with_a_size_that_does(prepared: PreparedDataset) -> None:
    config = TrainConfig(batch_size=10, accumulate=2)
    with pytest.raises(ConfigError, match=r"into 2 processes with 2 forward passes each.* Set train\.batch_size=8"):
        TrainingFeed(
            prepared,
            prepared.rows("train"),
            config,
            seed=1,
            device=torch.device("cpu"),
            processes=Processes(0, 2),
        )


@pytest.mark.slow
def test_one_and_two_processes_have_the_same_loss_curve(prepared: PreparedDataset, tmp_path: Path) -> None:
    """Of losses that see each image by itself, and of those that relate the images of a batch."""
    curves = {}
    for world in (1, 2):
        out = tmp_path / f"{world}.json"
        subprocess.run(torchrun(world, SCRIPT, prepared.root, out, *KINDS), check=True, timeout=300)
        curves[world] = json.loads(out.read_text())
    for kind in KINDS:
        one, two = (curves[world][kind] for world in (1, 2))
        assert [row["epoch"] for row in one] == [row["epoch"] for row in two] == [1, 2, 3]
        for a, b in zip(one, two, strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5, rel=1e-5), kind
            assert a["val_qwk"] == pytest.approx(b["val_qwk"], abs=1e-5), kind


PARAMS = """\
data: {{source: phantom, path: unused, task: ordinal, classes: [none, mild, moderate, severe], image_size: 32}}
train: {{backbone: test_convnext, epochs: {epochs}, batch_size: 16, precision: float32, threads: 1}}
losses: {{ce: {{}}}}
compare: {{losses: [ce], seeds: [1], baseline: ce}}
tracking: {{uri: none}}
"""


@pytest.mark.slow
def test_the_command_under_torchrun_writes_once_and_resumes_after_an_interruption(
    prepared: PreparedDataset, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.format(epochs=40))
    train = ["train", "--data", prepared.root, "--loss", "ce", "--checkpoint-minutes", "0"]
    entry = ["-m", "raregrade"]
    whole = subprocess.run(
        torchrun(2, *entry, *train, "--out", "whole", "--checkpoints", "other"),
        cwd=tmp_path,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert whole.stdout.count("val_qwk") == 1
    assert whole.stderr.count("epoch 3/40") == 1

    command = torchrun(2, *entry, *train, "--out", "model", "--checkpoints", "kept")
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    kept = tmp_path / "kept"
    deadline = time.monotonic() + 120
    while not list(kept.glob("*/state-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGTERM)  # as a cluster does with a pod
    assert first.wait(timeout=120) != 0
    assert not (tmp_path / "model").exists()
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    with (tmp_path / "model/history.csv").open() as resumed, (tmp_path / "whole/history.csv").open() as expected:
        assert list(csv.DictReader(resumed)) == list(csv.DictReader(expected))
