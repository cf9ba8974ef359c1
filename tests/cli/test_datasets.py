"""phantom, prepare and verify, as processes on real files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

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


def draw_folder(project: Path, *, header: str, own_split: bool = False) -> None:
    """Twelve patients of two images of noise, grades in turn; p0 and p11 share an image where the split is given."""
    rng = np.random.default_rng(8)
    lines = [header]
    (project / "raw").mkdir()
    for n in range(24):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(project / "raw" / f"{n}.png")
        split = "train" if n < 12 else "val" if n < 18 else "test"
        lines.append(f"{n}.png,{('none', 'mild', 'severe')[n // 2 % 3]},p{n // 2}" + (f",{split}" if own_split else ""))
    if own_split:
        shutil.copy(project / "raw" / "0.png", project / "raw" / "18.png")  # both of grade none
    (project / "raw" / "labels.csv").write_text("\n".join(lines) + "\n")
    data = {
        "source": "folder", "path": "raw", "task": "ordinal", "classes": ["none", "mild", "severe"], "image_size": 16,
        "label_column": "grade", "split": {"folds": 2, "val": 0.25, "test": 0.25},
    }  # fmt: skip
    params = yaml.safe_load((project / "params.yaml").read_text()) | {"data": data}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_prepare_and_verify_say_what_is_odd(run: Command, project: Path) -> None:
    draw_folder(project, header="filename,grade,lesion")
    result = run("prepare", "--out", "prepared")
    assert result.returncode == 0
    warning = (
        "warning: data.group_column is not set: each image is its own group, so images of one patient may lie in train "
        "and in test (column 'lesion' of labels.csv: 'p0' has 2 images)\n"
    )
    assert warning in result.stderr
    assert result.stdout.endswith("), each its own group\n")
    again = run("verify", "prepared")
    assert again.returncode == 0
    assert again.stderr == warning
    assert again.stdout.startswith("sound: ")


def test_prepare_says_how_many_patients_there_are(run: Command, project: Path) -> None:
    draw_folder(project, header="filename,grade,patient")
    result = run("prepare", "--out", "prepared", "--set", "data.group_column=patient")
    assert result.stdout.endswith(") of 12 patients\n")
    assert "warning" not in result.stderr


def test_prepare_refuses_patients_that_nobody_groups_by(run: Command, project: Path) -> None:
    draw_folder(project, header="filename,grade,patient")
    result = run("prepare", "--out", "prepared")
    assert result.returncode == 2
    assert result.stderr.startswith("raregrade: data.group_column is not set, but the column 'patient'")
    assert not (project / "prepared").exists()


def test_a_waiver_is_given_on_the_command_line_and_shown(run: Command, project: Path) -> None:
    draw_folder(project, header="filename,grade,patient,part", own_split=True)
    keys = ["--set", "data.group_column=patient", "--set", "data.split.column=part"]
    refused = run("prepare", "--out", "prepared", *keys)
    assert refused.returncode == 2
    assert "images with identical pixels lie in different splits: 0.png (train), 18.png (test)" in refused.stderr
    waive = "data.waive={identical_across_splits: as published}"
    assert run("prepare", "--out", "prepared", *keys, "--set", waive).returncode == 0
    shown = run("verify", "prepared")
    assert shown.returncode == 0
    assert "warning: waived: images with identical pixels" in shown.stderr
    assert "(reason: as published)" in shown.stderr
