"""The same parameters give the same numbers by ``dvc repro``, in processes and in containers."""

import json
import re
from collections import Counter

import pytest
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def all_metrics(folder):
    """(loss, seed) -> metrics, from every metrics.json with a report.json beside it."""
    found = {}
    for path in folder.rglob("metrics.json"):
        if (path.parent / "report.json").exists():
            about = json.loads((path.parent / "report.json").read_text())
            found[about["loss"], about["seed"]] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def runs(project, command, name):
    """The output folder of the pipeline by runner, with an MLflow database for each, and what the terminal showed."""
    shown = {}
    for runner, *options in (("subprocess",), ("docker", "--image", name, "--store", "store")):
        arguments = ["--runner", runner, "--root", runner, "--set", f"tracking.uri=sqlite:///{runner}.db", *options]
        shown[runner] = command(project, "raregrade", "pipeline", "run", "compare_losses", *arguments)
    return shown


def test_dvc_processes_and_containers_give_the_same_metrics(project, runs):
    by_dvc = all_metrics(project / "reports")
    assert set(by_dvc) == {("ce", 1), ("cdw_ce", 1)}
    assert all_metrics(project / "subprocess") == by_dvc
    assert all_metrics(project / "docker") == by_dvc


def test_a_run_in_containers_ends_with_comparison_and_locations(project, runs):
    assert "registered" in runs["docker"]
    report = re.search(r"^report: (\S+)$", runs["docker"], re.MULTILINE)
    assert report is not None
    assert (project / report[1]).is_file()


def test_containers_log_under_one_parent_with_the_commit_of_the_image(project, runs, image):
    client = MlflowClient(f"sqlite:///{project / 'docker.db'}")
    experiment = client.get_experiment_by_name("containers")
    logged = client.search_runs([experiment.experiment_id])
    parents = [run for run in logged if run.data.tags["raregrade.step"] == "pipeline"]
    assert len(parents) == 1
    children = [run for run in logged if run not in parents]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    steps = Counter(run.data.tags["raregrade.step"] for run in children)
    assert {"prepare": 1, "train": 2, "evaluate": 2, "compare": 1, "register": 1}.items() <= steps.items()
    assert client.get_model_version_by_alias("phantom-severity", "challenger")
    models = [json.loads(path.read_text()) for path in (project / "docker").rglob("model.json")]
    assert {model["git_commit"] for model in models} == {image.labels["org.opencontainers.image.revision"]}


def test_the_prepared_images_lie_in_the_store_that_was_given(project, runs):
    assert list((project / "store").rglob("*.npy"))
    assert not list((project / "docker").rglob("*.npy"))


def test_no_container_is_left(engine, runs):
    assert engine.containers.list(all=True, filters={"label": "raregrade.run"}) == []
