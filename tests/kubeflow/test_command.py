"""``raregrade pipeline`` as a command: what it accepts, refuses and says."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raregrade.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
ENTRY = "import sys; from raregrade.cli.main import main; sys.exit(main())"


def raregrade(*arguments, before="", **environment):
    """The command in a process of its own, where nothing is imported yet."""
    return subprocess.run(
        [sys.executable, "-c", before + ENTRY, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_compile_writes_a_file_for_the_image_that_is_named(workplace):
    done = raregrade(
        "pipeline", "compile", "compare_losses", "--image", "registry.example/raregrade:4f2a", "--out", "c.yaml"
    )
    assert done.returncode == 0, done.stderr
    spec = next(yaml.safe_load_all((workplace / "c.yaml").read_text()))
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()}
    assert images == {"registry.example/raregrade:4f2a"}
    assert "registry.example/raregrade:4f2a" in done.stdout


def test_compile_into_a_folder_names_the_file_after_the_pipeline(workplace, capsys):
    (workplace / "made").mkdir()
    assert run(["pipeline", "compile", "compare_losses", "--out", "made"]) == 0
    assert run(["pipeline", "compile", "tune_loss", "--out", "new/"]) == 0
    assert [path.name for path in (workplace / "made").iterdir()] == ["compare_losses.yaml"]
    assert [path.name for path in (workplace / "new").iterdir()] == ["tune_loss.yaml"]
    assert "new/tune_loss.yaml: tune_loss" in capsys.readouterr().out


def test_compile_of_all_pipelines_takes_a_folder(workplace):
    assert run(["pipeline", "compile", "--out", "all"]) == 0
    assert sorted(path.stem for path in (workplace / "all").iterdir()) == [
        "compare_losses",
        "cross_validate",
        "retrain_and_promote",
        "tune_loss",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["compare_losses", "--out", "c.txt"],
            "--out c.txt: a compiled pipeline is a .yaml file. Name one, or a folder.",
        ),
        (["--out", "c.yaml"], "--out is one file: name the pipeline as well, or give a folder."),
    ],
)
def test_compile_refuses_in_one_line_what_it_cannot_write(workplace, capsys, arguments, said):
    assert run(["pipeline", "compile", *arguments]) == 2
    assert capsys.readouterr().err == f"raregrade: {said}\n"


def test_compile_does_not_put_another_image_into_the_file_of_the_repository(monkeypatch, capsys):
    before = (ROOT / "pipelines" / "compare_losses.yaml").read_bytes()
    monkeypatch.chdir(ROOT / "pipelines")
    monkeypatch.setenv("RAREGRADE_IMAGE", "registry.example/raregrade:4f2a")
    assert run(["pipeline", "compile"]) == 2
    assert "Give --out" in capsys.readouterr().err
    assert (ROOT / "pipelines" / "compare_losses.yaml").read_bytes() == before


def test_compile_outside_of_the_repository_asks_where_to(workplace, capsys):
    assert run(["pipeline", "compile"]) == 2
    assert "where to? Give --out" in capsys.readouterr().err
    assert [path.name for path in workplace.iterdir()] == ["params.yaml"]


def test_without_kfp_it_names_the_extra(workplace):
    hide = "import sys; sys.modules['kfp'] = None; import importlib.util; find = importlib.util.find_spec; "
    hide += "importlib.util.find_spec = lambda name, *a: None if name == 'kfp' else find(name, *a); "
    done = raregrade("pipeline", "compile", before=hide)
    assert done.returncode == 2
    assert "pip install 'raregrade[pipelines]'" in done.stderr


def test_the_other_commands_start_without_kfp():
    code = "import sys; from raregrade.cli.main import run; run(['pipeline', '--help']); sys.exit('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("command", ["compile", "run"])
def test_an_unknown_pipeline_is_refused(workplace, capsys, command):
    assert run(["pipeline", command, "compare"]) == 2
    assert "unknown pipeline 'compare'; there is compare_losses" in capsys.readouterr().err


def test_run_asks_for_the_raw_data_first(workplace, capsys):
    assert run(["pipeline", "run", "compare_losses"]) == 2
    assert "Run `raregrade phantom --out data/raw/phantom` first" in capsys.readouterr().err
    assert not (workplace / ".raregrade").exists()


def test_run_refuses_a_wrong_parameter_before_anything_runs(workplace, capsys):
    assert run(["pipeline", "run", "compare_losses", "--set", "train.epochs=many"]) == 2
    assert "train.epochs" in capsys.readouterr().err
    assert not (workplace / ".raregrade").exists()


def test_a_dry_run_says_what_it_would_send_and_asks_nobody(workplace, capsys):
    arguments = ["--host", "https://kubeflow.example.org", "--raw-data", "/mnt/raw", "--dry-run"]
    assert run(["pipeline", "submit", "compare_losses", *arguments]) == 0
    shown = capsys.readouterr()
    assert "would send compare_losses with 4 trainings" in shown.out
    assert "--image names another" in shown.err


def test_a_dry_run_shows_image_host_revision_and_arguments(workplace, capsys):
    given = ["--host", "https://kubeflow.example.org", "--raw-data", "/mnt/raw", "--data-revision", "v7"]
    given += ["--image", "r.example/x:1", "--namespace", "team", "--no-cache", "--set", "train.epochs=3", "--dry-run"]
    assert run(["pipeline", "submit", "compare_losses", *given]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.partition("\n")[2])
    arguments = shown.pop("arguments")
    assert shown == {
        "image": "r.example/x:1",
        "namespace": "team",
        "experiment": "pipelines",
        "data revision": "v7",
        "cache": False,
    }
    assert (arguments["raw_data"], arguments["data_revision"]) == ("/mnt/raw", "v7")
    assert [item["section"]["train"]["epochs"] for item in arguments["runs"]] == [3, 3, 3, 3]


def test_alone_it_prints_its_help(capsys):
    assert run(["pipeline"]) == 0
    shown = capsys.readouterr()
    assert "raregrade pipeline [OPTIONS] COMMAND" in shown.out
    assert shown.err == ""


def test_submit_refuses_offline_what_cannot_work_on_a_cluster(workplace, capsys):
    assert run(["pipeline", "submit", "compare_losses", "--host", "https://kubeflow.example.org", "--dry-run"]) == 2
    assert "give --raw-data" in capsys.readouterr().err


def test_submit_says_in_one_line_that_nobody_listens(workplace, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert run(["pipeline", "submit", "compare_losses", "--host", url, "--raw-data", "/mnt/raw"]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("note:")]
    assert line.startswith(f"raregrade: cannot reach {url}: ")


def test_submit_names_a_token_file_that_is_not_there(workplace, capsys):
    options = ["--host", "https://kubeflow.example.org", "--raw-data", "/mnt/raw", "--token-file", "missing"]
    assert run(["pipeline", "submit", "compare_losses", *options]) == 2
    assert "cannot read the token file missing" in capsys.readouterr().err
