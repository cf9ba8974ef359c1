"""``raregrade init``: a project for one's own labels, in an empty folder and in a repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raregrade import __version__
from raregrade.config import load_params
from tests.cli.conftest import raregrade

from .conftest import Write

GRADES = ["none", "mild", "severe"]


@pytest.fixture
def labels(table: Write) -> Path:
    return table("filename,grade,patient", [f"{i}.png,{GRADES[i % 3]},P{i // 2}" for i in range(60)])


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git/" not in str(p)
    }


def test_a_project_in_an_empty_folder_is_ready_for_dvc(labels: Path, tmp_path: Path) -> None:
    done = raregrade("init", "My Knees", "--table", labels, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "My Knees"
    params = load_params(folder / "params.yaml")
    assert params.data.classes == GRADES
    assert (params.data.task, params.data.group_column) == ("ordinal", "patient")
    assert params.register_.name == "my-knees"
    assert params.raregrade.version == __version__
    assert (folder / ".dvc").is_dir()
    assert (folder / ".git").is_dir()
    assert not (folder / "data").exists()
    assert "cd 'My Knees'" in done.stdout
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    stages = {name.partition("@")[0] for name in listed.stdout.split()}
    assert stages == {"prepare", "train", "evaluate", "compare"}


def test_the_parameters_hold_every_key_that_dvc_reads(labels: Path, tmp_path: Path) -> None:
    from tests.dvc.test_stages import STAGES, holds, params_of

    assert raregrade("init", "own", "--table", labels, cwd=tmp_path).returncode == 0
    given = yaml.safe_load((tmp_path / "own" / "params.yaml").read_text(encoding="utf-8"))
    named = {k for stage in STAGES if stage != "phantom" for k in params_of(stage) if "${" not in k}
    assert [key for key in sorted(named) if not holds(given, key)] == []


def test_images_within_the_project_are_named_relative_to_it(labels: Path, tmp_path: Path) -> None:
    assert raregrade("init", "--table", "raw/labels.csv", cwd=tmp_path).returncode == 0
    assert load_params(tmp_path / "params.yaml").data.path == "raw"


def test_a_second_init_names_what_is_there_and_writes_nothing(labels: Path, tmp_path: Path) -> None:
    assert raregrade("init", "own", "--table", labels, cwd=tmp_path).returncode == 0
    before = content(tmp_path / "own")
    done = raregrade("init", "own", "--table", labels, cwd=tmp_path)
    assert done.returncode == 2
    assert "has params.yaml, dvc.yaml" in done.stderr
    assert content(tmp_path / "own") == before


def test_in_a_repository_it_adds_itself_and_leaves_what_is_there(labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".gitignore").write_text("secret\nmodels/")
    (folder / "README.md").write_text("mine\n")
    done = raregrade("init", "--table", labels, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "README.md").read_text() == "mine\n"
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert ignored[:2] == ["secret", "models/"]
    assert len(ignored) == len(set(ignored))
    assert "data/prepared/" in ignored


def test_a_project_in_the_folder_of_its_images_is_refused(labels: Path) -> None:
    before = content(labels.parent)
    done = raregrade("init", "--table", "labels.csv", cwd=labels.parent)
    assert done.returncode == 2
    assert "lies in the folder of the images" in done.stderr
    assert content(labels.parent) == before


def test_what_prepare_would_refuse_is_said_at_once(table: Write, tmp_path: Path) -> None:
    rows = [f"{i}.png,{GRADES[i % 3]},P{i // 2}" for i in range(60)]
    path = table("filename,grade,patient", rows)
    (path.parent / "7.png").unlink()
    done = raregrade("init", "own", "--table", path, cwd=tmp_path)
    assert done.returncode == 0
    assert "note: `prepare` would refuse: " in done.stdout
    assert "7.png" in done.stdout


def test_folders_of_classes_get_a_table(table: Write, tmp_path: Path) -> None:
    root = table("filename", [f"{grade}/{i}.png" for grade in GRADES for i in range(10)]).parent
    (root / "labels.csv").unlink()
    done = raregrade("init", "own", "--images", root, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (root / "labels.csv").read_text().startswith("filename,label\nmild/0.png,mild\n")
    assert load_params(tmp_path / "own" / "params.yaml").data.classes == GRADES


def test_without_labels_the_project_draws_its_images(tmp_path: Path) -> None:
    assert raregrade("init", "try", cwd=tmp_path).returncode == 0
    folder = tmp_path / "try"
    assert load_params(folder / "params.yaml").data.source == "phantom"
    assert (folder / "data" / "raw" / "dvc.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "none.csv"], "none.csv: no such file"),
        (["--images", "none"], "--images none: no such folder"),
        (["--table", "a.csv", "--images", "b"], "either --table or --images"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = raregrade("init", "own", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "own").exists()
