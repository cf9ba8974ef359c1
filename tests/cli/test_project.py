"""Commands around a project's folder, and every command run from a folder below it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raregrade import __version__

from .conftest import PARAMS, raregrade


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    return tmp_path


def made_for(project: Path, version: str, **steps: str) -> None:
    params = PARAMS | {"raregrade": {"version": version, "steps": steps}}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def test_commands_say_in_one_line_that_params_are_for_another_version(project: Path) -> None:
    made_for(project, "0.0.1")
    done = raregrade("params", cwd=project)
    assert done.returncode == 0
    assert done.stderr == (
        f"params.yaml was made for raregrade 0.0.1 and this is {__version__}: `raregrade upgrade` says what changed.\n"
    )


def test_upgrade_prints_what_changed_and_ends_the_remark(project: Path) -> None:
    made_for(project, "0.0.1", train="0.0.1", evaluate="0.0.1")
    done = raregrade("upgrade", "--rerun", "train", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Tuning with Optuna" in done.stdout
    assert "To run again: train. `dvc repro` does it." in done.stdout
    steps = yaml.safe_load((project / "params.yaml").read_text())["raregrade"]["steps"]
    assert (steps["train"], steps["evaluate"]) == (__version__, "0.0.1")
    assert raregrade("params", cwd=project).stderr == ""


def test_upgrade_with_nothing_to_do_says_so_and_writes_nothing(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    done = raregrade("upgrade", cwd=project)
    assert f"is for raregrade {__version__} already" in done.stdout
    assert (project / "params.yaml").read_bytes() == before


def test_upgrade_of_parameters_of_a_newer_version_is_refused(project: Path) -> None:
    made_for(project, "99.0.0")
    done = raregrade("upgrade", cwd=project)
    assert done.returncode == 2
    assert "was made for raregrade 99.0.0" in done.stderr


def test_a_version_that_is_none_is_refused(project: Path) -> None:
    made_for(project, "new")
    done = raregrade("params", cwd=project)
    assert done.returncode == 2
    assert "raregrade.version = 'new'" in done.stderr


def test_paths_in_params_mean_the_same_from_a_folder_below(project: Path) -> None:
    below = project / "notes" / "deep"
    below.mkdir(parents=True)
    assert raregrade("phantom", "--out", "../../raw", cwd=below).returncode == 0
    done = raregrade("prepare", "--out", "prepared", cwd=below)
    assert done.returncode == 0, done.stderr
    assert (below / "prepared" / "dataset.json").is_file()
    assert done.stdout.startswith("notes/deep/prepared: ")


def test_params_named_on_the_command_line_are_read_where_it_was_typed(project: Path) -> None:
    below = project / "below"
    below.mkdir()
    done = raregrade("prepare", "--params", "../params.yaml", "--out", "prepared", cwd=below)
    assert done.returncode == 2
    assert "raw: no phantom there" in done.stderr


def test_every_command_that_reads_params_finds_them_upwards() -> None:
    import typer

    from raregrade.cli.app import app
    from raregrade.cli.project_folder import find_project_first

    def leaves(command: object) -> list[object]:
        below = getattr(command, "commands", None)
        return [command] if below is None else [leaf for sub in below.values() for leaf in leaves(sub)]

    root = typer.main.get_command(app)
    find_project_first(root)
    reading = [c for c in leaves(root) if any(p.name == "params" for p in c.params)]  # type: ignore[attr-defined]
    assert len(reading) > 15
    assert all("invoke" in vars(command) for command in reading)


def test_without_params_anywhere_the_message_says_what_to_do(tmp_path: Path) -> None:
    done = raregrade("prepare", "--out", "prepared", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot read params.yaml" in done.stderr
    assert "Traceback" not in done.stderr
