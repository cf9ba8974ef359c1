"""Git commits from real repositories, DVC md5s from files that the real dvc wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raregrade.errors import DataError
from raregrade.tracking import dvc_md5, git_commit


def _git(folder: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    answer = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | identity, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    _git(tmp_path, "add", "code.py")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_is_head_of_the_repository(repository: Path) -> None:
    assert git_commit(repository) == _git(repository, "rev-parse", "HEAD")


def test_a_changed_tracked_file_makes_the_commit_dirty(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2\n")
    assert git_commit(repository) == _git(repository, "rev-parse", "HEAD") + "-dirty"


def test_an_untracked_file_does_not_make_the_commit_dirty(repository: Path) -> None:
    (repository / "output.txt").write_text("made by a run\n")
    assert git_commit(repository) == _git(repository, "rev-parse", "HEAD")


def test_the_environment_names_the_commit_where_there_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAREGRADE_GIT_COMMIT", "0123abc")
    assert git_commit(tmp_path) == "0123abc"


def test_without_a_repository_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == "unknown"


def test_without_git_the_commit_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit(repository) == "unknown"


def _dvc(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        check=True,
    )


@pytest.mark.slow
def test_the_md5_is_the_one_that_dvc_wrote(tmp_path: Path) -> None:
    _dvc(tmp_path, "init", "--no-scm", "-q")
    stage = {"cmd": "mkdir -p made && echo 1 > made/x", "outs": ["made"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    _dvc(tmp_path, "repro", "-q")
    added = tmp_path / "data" / "raw" / "mine"
    added.mkdir(parents=True)
    (added / "image.txt").write_text("pixels")
    _dvc(tmp_path, "add", "-q", "data/raw/mine")

    written = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]["make"]["outs"][0]["md5"]
    assert dvc_md5(tmp_path / "made") == written
    assert written.endswith(".dir")
    pointer = yaml.safe_load((tmp_path / "data" / "raw" / "mine.dvc").read_text())
    assert dvc_md5(added) == pointer["outs"][0]["md5"]


@pytest.fixture
def dvc_project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\n"
        "stages:\n"
        "  phantom:\n    cmd: raregrade phantom\n    outs:\n    - {path: data/raw, hash: md5, md5: aaa.dir}\n"
        "  prepare:\n    cmd: raregrade prepare\n    outs:\n    - {path: data/prepared, hash: md5, md5: bbb.dir}\n"
        "  register:\n    cmd: raregrade register\n"
    )
    return tmp_path


def test_each_output_of_the_lock_has_its_own_md5(dvc_project: Path) -> None:
    assert dvc_md5(dvc_project / "data" / "raw") == "aaa.dir"
    assert dvc_md5(dvc_project / "data" / "prepared") == "bbb.dir"


def test_a_relative_path_means_the_working_folder(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dvc_project / "data").mkdir()
    monkeypatch.chdir(dvc_project / "data")
    assert dvc_md5(Path("prepared")) == "bbb.dir"
    assert dvc_md5(Path("../data/raw/")) == "aaa.dir"


def test_what_dvc_does_not_track_has_no_md5(dvc_project: Path) -> None:
    assert dvc_md5(dvc_project / "data" / "other") is None
    assert dvc_md5(dvc_project / "data") is None


def test_a_lock_outside_of_a_dvc_repository_does_not_count(dvc_project: Path) -> None:
    (dvc_project / ".dvc").rmdir()
    assert dvc_md5(dvc_project / "data" / "prepared") is None


def test_a_broken_lock_is_named(dvc_project: Path) -> None:
    (dvc_project / "dvc.lock").write_text("stages: [}")
    with pytest.raises(DataError, match=r"dvc\.lock"):
        dvc_md5(dvc_project / "data" / "prepared")
