"""phantom, prepare and verify, as processes on real files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_prepare_says_how_many_images_each_split_has(run: Command, prepared: Path, project: Path) -> None:
    shutil.copytree(prepared / "raw", project / "raw")
    result = run("prepare", "--out", "prepared")
    assert result.returncode == 0
    assert result.stdout.startswith("prepared: ")
    assert "of 16 px (train " in result.stdout


def test_the_same_parameters_prepare_the_same_dataset(run: Command, prepared: Path, project: Path) -> None:
    shutil.copytree(prepared / "raw", project / "raw")
    assert run("prepare", "--out", "prepared").returncode == 0
    first, second = (root / "prepared" / "dataset.json" for root in (prepared, project))
    assert first.read_text() == second.read_text()


def test_set_reaches_the_step(run: Command, project: Path) -> None:
    result = run("phantom", "--out", "raw", "--set", "phantom.patients=21", "--set", "phantom.max_images_per_patient=1")
    assert result.returncode == 0
    assert len(list((project / "raw" / "images").glob("*.png"))) == 21


def test_prepare_keeps_the_decoded_images_in_the_store(run: Command, prepared: Path, project: Path) -> None:
    shutil.copytree(prepared / "raw", project / "raw")
    assert run("prepare", "--out", "prepared", "--store", "store").returncode == 0
    assert list((project / "store").rglob("*.npy"))
    assert not list((project / "prepared").rglob("*.npy"))
    assert run("verify", "prepared").returncode == 0


def test_verify_finds_a_sound_dataset_sound(run: Command, prepared: Path) -> None:
    result = run("verify", prepared / "prepared")
    assert result.returncode == 0
    assert result.stdout.startswith("sound: ")


def test_verify_lists_what_is_wrong_and_gives_2(run: Command, prepared: Path, project: Path) -> None:
    shutil.copytree(prepared / "prepared", project / "prepared")
    shard = min((project / "prepared" / "images").glob("*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0xFF
    shard.write_bytes(content)
    result = run("verify", "prepared")
    assert result.returncode == 2
    assert "is not sound:" in result.stderr
    assert "its pixels are not those of its sha256" in result.stderr
    assert "Traceback" not in result.stderr
