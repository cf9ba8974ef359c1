"""A database that was moved or copied with its project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raregrade.errors import UserError
from raregrade.tracking.connection import connect
from raregrade.tracking.relocate import check_in_place, relocate


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose database holds a run with a file."""
    folder = tmp_path / "my project"
    folder.mkdir()
    here = connect(f"sqlite:///{folder / 'mlflow.db'}", "raregrade")
    run = here.client.create_run(here.experiment_id)
    (tmp_path / "note.txt").write_text("kept")
    here.client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    here.client.set_tag(run.info.run_id, "mine", "1")
    return folder


def note_of(folder: Path, tmp_path: Path) -> str:
    here = connect(f"sqlite:///{folder / 'mlflow.db'}", "raregrade")
    (run,) = here.client.search_runs([here.experiment_id])
    return Path(here.client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))).read_text()


def test_a_moved_database_is_noticed_and_named_and_keeps_its_files(home: Path, tmp_path: Path) -> None:
    moved = home.rename(tmp_path / "moved 100%")
    with pytest.raises(UserError, match=rf"moved or copied: .*{home}, and lies in .*`raregrade relocate`"):
        connect(f"sqlite:///{moved / 'mlflow.db'}", "raregrade")
    assert relocate(moved / "mlflow.db") >= 2
    assert note_of(moved, tmp_path) == "kept"
    assert relocate(moved / "mlflow.db") == 0


def test_a_copy_goes_its_own_way(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    with pytest.raises(UserError, match="relocate"):
        connect(f"sqlite:///{copy / 'mlflow.db'}", "raregrade")
    relocate(copy / "mlflow.db")
    (next(copy.rglob("note.txt"))).write_text("of the copy")
    assert (note_of(copy, tmp_path), note_of(home, tmp_path)) == ("of the copy", "kept")


def test_a_database_in_place_is_left_alone_also_through_a_link(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    for folder in (home, tmp_path / "link"):
        check_in_place(folder / "mlflow.db")


def test_an_experiment_of_the_users_own_may_have_its_files_elsewhere(home: Path, tmp_path: Path) -> None:
    client = connect(f"sqlite:///{home / 'mlflow.db'}", "raregrade").client
    client.create_experiment("mine", artifact_location=(tmp_path / "elsewhere").as_uri())
    check_in_place(home / "mlflow.db")
