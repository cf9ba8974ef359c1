"""Exit codes and messages of the command, as a shell sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raregrade import __version__
from raregrade.cli import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("raregrade"))


def test_version_is_printed(run: Command) -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"raregrade {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(run: Command, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 0
    commands = result.stdout.split("Commands:\n")[1].split("\n\n")[0]
    listed = {line.split()[0] for line in commands.splitlines()}
    assert listed == {
        "phantom", "fetch", "prepare", "verify", "train", "evaluate", "compare", "compare-folds", "show",
        "register", "promote", "rollback", "models", "predict", "params", "presets",
        "pipeline", "sync", "tune", "dashboard", "ui", "init", "upgrade", "relocate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frain"], "No such command 'frain'. Did you mean 'train'? See `raregrade --help`."),
        (["train", "--data", "d"], "Missing option"),
        (["train", "--data", "d", "--loss", "ce", "--out", "m", "--seed", "x"], "'--seed'"),
        (["train", "--data", "d", "--loss", "ce", "--out", "m", "--seed", "-1"], "'--seed'"),
        (["train", "--data", "d", "--loss", "ce", "--out", "m", "--resume", "maybe"], "'--resume'"),
        (["train", "--data", "d", "--loss", "ce", "--out", "m", "--epochs", "3"], "No such option"),
        (["phantom", "--out", "raw", "--params", "other.yaml"], "other.yaml"),
        (["phantom", "--out", "raw", "--set", "phantom.patients=3"], "phantom.patients = 3"),
        (["phantom", "--out", "raw", "--set", "phantom.patient=30"], "did you mean 'patients'"),
        (["phantom", "--out", "raw", "--set", "phantom.patients"], "expected key=value"),
        (["phantom", "--out", "params.yaml/raw"], "params.yaml"),
        (["prepare", "--out", "prepared"], "raw"),
        (["train", "--data", "nowhere", "--loss", "ce", "--out", "m"], "nowhere"),
        (["train", "--data", "nowhere", "--loss", "lmf", "--out", "m"], "loss 'lmf' is not defined"),
        (["evaluate", "--out", "r"], "either --model and --data, or --predictions and --labels"),
        (["evaluate", "--out", "r", "--model", "m", "--labels", "l"], "either --model and --data"),
        (["evaluate", "--out", "r", "--predictions", "p.csv", "--labels", "l.json"], "l.json"),
        (["compare", "nowhere", "--out", "comparison"], "nowhere: no such folder"),
        (["compare", ".", "--out", "comparison"], "no report.json in it"),
        (["show", "nowhere"], "nowhere/comparison.json: no such file. `raregrade compare` writes it."),
        (["verify", "nowhere"], "nowhere"),
        (["predict", "--model", "nowhere", "image.png"], "nowhere"),
    ],
)
def test_wrong_input_gives_2_and_one_message(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(project)
    code = main.run(arguments)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("raregrade: ")
    assert printed.err.count("raregrade: ") == 1
    assert said in printed.err


@pytest.mark.parametrize("arguments", [["frain"], ["phantom", "--out", "r", "--set", "seed=x"], ["verify", "nowhere"]])
def test_wrong_input_shows_no_traceback(run: Command, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_the_traceback_of_wrong_input_is_shown_on_request(run: Command) -> None:
    result = run("verify", "nowhere", RAREGRADE_DEBUG="1")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("raregrade: ")


def test_a_folder_that_may_not_be_written_gives_2(run: Command, project: Path) -> None:
    (project / "file").write_text("")
    result = run("phantom", "--out", "file/raw")
    assert result.returncode == 2
    assert "file" in result.stderr


def test_a_mistake_of_ours_gives_1_with_a_traceback(project: Path) -> None:
    code = (
        "import raregrade.data.phantom as phantom\n"
        "def broken(*_): raise RuntimeError('a mistake')\n"
        "phantom.draw_phantom = broken\n"
        "from raregrade.cli.main import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "phantom", "--out", "raw"],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: a mistake" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_gives_75_says_how_to_resume_and_leaves_nothing_finished(
    project: Path, stop: Callable[..., tuple[int, str]], number: signal.Signals
) -> None:
    def drawing(_: str) -> bool:
        return any(project.glob("**/*.png"))

    arguments = ["phantom", "--out", "raw", "--set", "phantom.patients=20000"]
    code, stderr = stop(arguments, project, number, once=drawing)
    assert code == 75
    assert stderr == "raregrade: interrupted; run the same command again to resume\n"
    assert not (project / "raw").exists()


def test_a_reader_that_goes_away_is_no_reason_for_a_traceback(project: Path) -> None:
    with subprocess.Popen(
        [PROGRAM, "--help"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 1
    assert stderr == ""


HEAVY = ("torch", "torchvision", "timm", "mlflow", "kfp", "dvc", "sklearn", "matplotlib", "pandas", "pyarrow", "optuna")


def imported_by(arguments: list[str], cwd: Path) -> set[str]:
    """The heavy packages that a command has imported when it ends."""
    code = (
        "import sys\n"
        "from raregrade.cli.main import run\n"
        "run(sys.argv[2:])\n"
        "print('\\nimported:', *(set(sys.argv[1].split(',')) & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, ",".join((*HEAVY, "numpy")), *arguments],
        cwd=cwd, capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    return set(result.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["pipeline", "run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(project: Path, arguments: list[str]) -> None:
    assert imported_by(arguments, project) == set()


def test_parameters_are_checked_before_anything_heavy_is_imported(project: Path) -> None:
    arguments = ["train", "--data", "d", "--loss", "ce", "--out", "m", "--set", "train.epochs=0"]
    assert imported_by(arguments, project).isdisjoint(HEAVY)


def test_preparing_data_imports_neither_torch_nor_mlflow(prepared: Path, tmp_path: Path) -> None:
    imported = imported_by(["prepare", "--out", str(tmp_path / "again")], prepared)
    assert imported.isdisjoint({"torch", "torchvision", "timm", "mlflow", "kfp", "dvc", "matplotlib"})
