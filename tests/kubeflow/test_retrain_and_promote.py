"""``retrain_and_promote`` twice: without a champion, then with new patients; both from a DVC repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raregrade.data.manifest import PreparedDataset
from tests.kubeflow.local_pipelines import draw, newest_run, pipeline_run, read, working_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NAME = "retrain_and_promote"
TOOLS = Path(sys.executable).parent


def in_git(repo, *commands):
    author = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        subprocess.run(
            command.split(),
            cwd=repo,
            env=os.environ | author | {"PATH": path, "DVC_NO_ANALYTICS": "1"},
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    """Two runs on the branch ``main`` of one repository, which got more patients in between."""
    tiny["train"]["lr"] = 0.002  # what makes the champion's recipe another one than the default of the second run
    folder = working_folder(tmp_path_factory.mktemp("retrain"), tiny)
    repo = tmp_path_factory.mktemp("repo")
    data = repo / tiny["data"]["path"]
    draw(data, tiny)
    in_git(repo, "git init --initial-branch main", "dvc init", f"dvc add {tiny['data']['path']}", "git add --all")
    in_git(repo, "git commit --message first")
    options = ("--data-repo", str(repo), "--data-revision", "main")
    first = pipeline_run(folder, NAME, *options)
    assert first.returncode == 0, first.stdout + first.stderr
    before = newest_run(folder, NAME)
    draw(data, tiny, patients=60)
    in_git(repo, f"dvc add {tiny['data']['path']}", "git commit --all --message second")
    second = pipeline_run(folder, NAME, *options, "--set", "train.lr=0.0001")
    assert second.returncode == 0, second.stdout + second.stderr
    return folder, (before, first.stdout), (newest_run(folder, NAME), second.stdout)


def dataset(run):
    return PreparedDataset.open(run / "prepare-dataset" / "dataset")


def test_without_a_champion_the_baseline_is_trained_and_becomes_champion(runs):
    _, (run, stdout), _ = runs
    promoted = read(run / "promote-model" / "promotion" / "promoted.json")
    assert (promoted["version"], promoted["previous"], promoted["moved"]) == ("1", None, True)
    assert read(run / "for-loop-2-iteration-0" / "train-model" / "model" / "model.json")["loss"]["name"] == "ce"
    assert "promoted: phantom-severity champion is now version 1 (was not set)" in stdout


def test_each_run_reads_the_branch_as_it_is_then(runs):
    folder, (first, _), (second, _) = runs
    one, two = (read(run / "fetch-data" / "raw" / "fetched.json") for run in (first, second))
    assert one["revision"] != two["revision"]
    assert one["path"] != two["path"]
    assert Path(two["path"]).is_relative_to(folder / ".raregrade" / "store")


def test_known_patients_keep_their_split_and_new_ones_are_dealt(runs):
    _, (first, _), (second, _) = runs
    one, two = (dataset(run).manifest.groupby("group_id")["split"].first() for run in (first, second))
    assert set(one.index) < set(two.index)
    assert two.reindex(one.index).equals(one)


def test_the_recipe_is_the_champions_and_not_that_of_the_parameters(runs):
    _, _, (second, _) = runs
    card = read(second / "for-loop-2-iteration-0" / "train-model" / "model" / "model.json")
    assert card["train"]["lr"] == 0.002


def test_champion_and_successor_are_compared_on_the_new_data(runs):
    _, _, (second, _) = runs
    comparison = read(second / "compare-models" / "comparison" / "comparison.json")
    assert list(comparison["losses"]) == ["ce", "champion"]
    assert comparison["winner"]["loss"] == "ce"
    assert comparison["splits"]["val"]["images"] == len(dataset(second).rows("val"))


def test_the_successor_takes_the_champions_place(runs):
    folder, _, (second, stdout) = runs
    promoted = read(second / "promote-model" / "promotion" / "promoted.json")
    assert (promoted["version"], promoted["previous"], promoted["moved"]) == ("2", "1", True)
    assert "promoted: phantom-severity champion is now version 2 (was version 1)" in stdout
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert client.get_model_version_by_alias("phantom-severity", "champion").version in (2, "2")


def test_the_parent_run_of_each_says_how_it_ended(runs):
    folder, *_ = runs
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("pipelines")
    parents = client.search_runs([experiment.experiment_id], "tags.`raregrade.step` = 'pipeline'")
    assert [parent.data.tags["raregrade.pipeline.state"] for parent in parents] == ["SUCCEEDED", "SUCCEEDED"]
    notes = [parent.data.tags["mlflow.note.content"] for parent in parents]
    assert all(note.startswith("**retrain_and_promote succeeded**") for note in notes)
    assert all("is champion now" in note for note in notes)
