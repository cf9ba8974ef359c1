"""tune and dashboard as processes: what is wrong with the input is one message, and the dashboard opens."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import PROGRAM

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def tune(run: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    # One epoch is all that params.yaml of these tests trains.
    return run("tune", "--data", "prepared", "--out", "tuned", "--set", "tune.min_epochs=1", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "lfm"], "loss 'lfm' is not defined under losses; defined: ce, cdw_ce"),
        (["--loss", "ce", "--set", "tune.space={cdw_ce: {pow: 1}}"], "tune.space.cdw_ce.pow: unknown parameter"),
        (["--loss", "ce", "--set", "tune.space={cdw_ce: {power: {low: 3, high: 1}}}"], "3 to 1 is inverted"),
        (["--loss", "ce", "--set", "tune.space={cdw_ce: {power: {high: 99}}}"], "cdw_ce.power = 99.0: input should be"),
        (["--loss", "ce", "--set", "tune.objective=auc"], "tune.objective = 'auc': input should be 'auto', 'qwk'"),
        (["--loss", "ce", "--worker"], "leave --out, --fresh and --workers to another command"),
        (
            ["--loss", "ce", "--set", "tune.losses=[cdw_ce]"],
            "tune.losses: cdw_ce is tuned and compared with ce, which is not",
        ),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(run: Command, arguments: list[str], message: str) -> None:
    result = tune(run, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_settings_that_could_never_act_are_one_message(run: Command, prepared: Path, project: Path) -> None:
    (project / "prepared").symlink_to(prepared / "prepared")
    result = tune(run, "--loss", "ce", "--set", "tune.min_epochs=2")
    assert result.returncode == 2
    assert "tune.min_epochs = 2: there is 1 epoch, so Hyperband could never stop a trial" in result.stderr
    assert not (project / ".raregrade").exists()


def test_a_dataset_that_is_missing_is_named(run: Command) -> None:
    result = tune(run, "--loss", "ce")
    assert result.returncode == 2
    assert "prepared is not a prepared dataset" in result.stderr


def test_a_database_that_does_not_answer_is_one_message(run: Command, prepared: Path, project: Path) -> None:
    (project / "prepared").symlink_to(prepared / "prepared")
    result = tune(run, "--loss", "ce", "--storage", "postgresql://me:pass-word@127.0.0.1:1/studies")
    assert result.returncode == 2
    assert "postgresql://me:***@127.0.0.1:1/studies cannot be used" in result.stderr
    assert "pass-word" not in result.stderr
    assert "Traceback" not in result.stderr
    assert not (project / "tuned").exists()


def test_sqlite_with_two_workers_is_one_message(run: Command, prepared: Path, project: Path) -> None:
    (project / "prepared").symlink_to(prepared / "prepared")
    result = tune(run, "--loss", "ce", "--storage", "sqlite:///studies.db", "--workers", "2")
    assert result.returncode == 2
    assert "sqlite locks the whole file for every write" in result.stderr


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"refused: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {hidden!r} else found(name, *rest)
from raregrade.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def without(packages: tuple[str, ...], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.format(hidden=packages), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_without_optuna_the_message_names_the_extra(prepared: Path, project: Path) -> None:
    (project / "prepared").symlink_to(prepared / "prepared")
    arguments = ["tune", "--data", "prepared", "--loss", "ce", "--out", "tuned"]
    result = without(("optuna",), project, *arguments)
    assert result.returncode == 2, result.stderr
    assert "pip install 'raregrade[tuning]'" in result.stderr


def test_without_the_dashboard_tune_imports_and_the_dashboard_names_the_extra(project: Path) -> None:
    result = without(("optuna_dashboard",), project, "dashboard")
    assert result.returncode == 2, result.stderr
    assert "pip install 'raregrade[tuning]'" in result.stderr
    code = "import sys; sys.modules['optuna_dashboard'] = None; import raregrade.steps.tune, raregrade.tuning.workers"
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == 0


@pytest.mark.slow
def test_a_study_is_tuned_shown_and_trained_with(run: Command, prepared: Path, project: Path) -> None:
    (project / "prepared").symlink_to(prepared / "prepared")
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["train"]["backbone"] = "test_resnet"
    settings["tune"] = {"trials": 2, "repeats": 1, "confirm": 2, "min_epochs": 1}
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    first = tune(run, "--loss", "cdw_ce")
    assert first.returncode == 0, first.stderr
    best = yaml.safe_load((project / "tuned" / "best.yaml").read_text())
    assert first.stdout.splitlines()[0] == best["verdict"]
    assert {path.name for path in (project / "tuned").iterdir()} == {
        "baseline.yaml",
        "best.yaml",
        "trials.csv",
        "figures",
    }
    assert best["study"]["trials"] == best["baseline"]["study"]["trials"] == 2

    again = tune(run, "--loss", "cdw_ce")
    assert again.stdout == first.stdout
    assert again.stderr == ""  # nothing was left to do
    anew = tune(run, "--loss", "cdw_ce", "--fresh")
    assert anew.stderr.count("2/2") == first.stderr.count("2/2")
    assert yaml.safe_load((project / "tuned" / "best.yaml").read_text()) == best

    trained = run("train", "--data", "prepared", "--loss", "cdw_ce", "--loss-params", "tuned/best.yaml", "--out", "m")
    assert trained.returncode == 0, trained.stderr
    card = json.loads((project / "m" / "model.json").read_text())
    assert card["loss"]["name"] == "cdw_ce-tuned"
    assert card["loss"]["params"] == best["params"]
    check_dashboard(project, best["study"]["name"])


def check_dashboard(project: Path, study: str) -> None:
    """It serves the studies of the storage that params.yaml names."""
    from tests.servers import free_port

    port = free_port()
    with subprocess.Popen([PROGRAM, "dashboard", "--port", str(port)], cwd=project, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert f"http://127.0.0.1:{port}/".encode() in server.stdout.readline()
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                        names = [item["study_name"] for item in json.load(answer)["study_summaries"]]
                    break
                except urllib.error.URLError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(timeout=60)
    assert study in names
