"""``tune_loss``: its arguments, and a run of it with two workers on one study."""

import pandas as pd
import pytest
import yaml

from raregrade.config import params_from_dict, section
from raregrade.errors import UserError
from raregrade.kubeflow.pipelines.tune_loss import arguments
from raregrade.kubeflow.task_io import section_from_argument, section_to_argument
from tests.kubeflow.local_pipelines import newest_run, pipeline_run, read, working_folder


@pytest.fixture
def params(raw_params):
    raw_params["tune"] = {"losses": ["ce", "cdw_ce"], "workers": 2, "pruner": "none"}
    raw_params["compare"]["baseline"] = "ce-tuned"
    return params_from_dict(raw_params)


def test_what_is_found_is_trained_beside_the_baseline_tuned_alike_and_both_as_they_are(params):
    runs = arguments(params, raw_data="x")["runs"]
    assert [(run["loss"], run.get("tuned"), run["seed"]) for run in runs] == [
        (loss, tuned, seed)
        for loss, tuned in (("ce", None), ("cdw_ce", None), ("ce", "baseline.yaml"), ("cdw_ce", "best.yaml"))
        for seed in (1, 2)
    ]
    compare = arguments(params, raw_data="x")["compare"]["compare"]
    assert compare["losses"] == ["ce", "cdw_ce", "ce-tuned", "cdw_ce-tuned"]
    assert compare["baseline"] == "ce-tuned"


def test_a_tuned_baseline_stands_against_itself_as_it_is(raw_params):
    raw_params["tune"] = {"losses": ["ce"], "pruner": "none"}
    raw_params["compare"]["baseline"] = "ce-tuned"
    made = arguments(params_from_dict(raw_params), raw_data="x")
    assert made["compare"]["compare"]["losses"] == ["ce", "ce-tuned"]
    assert {run.get("tuned") for run in made["runs"]} == {None, "best.yaml"}


def test_every_worker_has_the_same_study_and_a_number_of_its_own(params):
    made = arguments(params, raw_data="x")
    assert made["workers"] == [{"number": 0}, {"number": 1}]
    expected = section(params, "tune", "cdw_ce")
    assert section_from_argument(type(expected), made["tune"]) == expected
    assert made["storage"] == section_to_argument(params.tune.study_storage())


@pytest.mark.parametrize(
    ("losses", "named"), [([], "none"), (["ce", "cdw_ce", "strong"], "ce, cdw_ce, strong")], ids=["none", "two"]
)
def test_it_tunes_one_loss_beside_the_baseline(raw_params, losses, named):
    raw_params["losses"]["strong"] = {"kind": "cdw_ce", "power": 5.0}
    raw_params["tune"] = {"losses": losses, "pruner": "none"}
    raw_params["compare"]["baseline"] = "ce-tuned" if losses else "ce"
    with pytest.raises(UserError) as caught:
        arguments(params_from_dict(raw_params), raw_data="x")
    assert f"tune.losses names {named}. Give one, such as --set 'tune.losses=[ce, cdw_ce]'" in str(caught.value)
    assert "--set compare.baseline=ce-tuned" in str(caught.value)


def test_a_baseline_that_no_study_tunes_is_refused(raw_params):
    raw_params["tune"] = {"losses": ["ce", "cdw_ce"], "pruner": "none"}
    raw_params["compare"]["baseline"] = "cdw_ce-tuned"
    with pytest.raises(UserError, match=r"every study tunes, ce; compare\.baseline names cdw_ce, of kind cdw_ce"):
        arguments(params_from_dict(raw_params), raw_data="x")


def test_a_password_never_becomes_an_argument(raw_params):
    raw_params["compare"]["baseline"] = "ce-tuned"
    storage = "postgresql://me:secret@db/optuna"
    raw_params["tune"] = {"losses": ["ce", "cdw_ce"], "pruner": "none", "storage": storage}
    with pytest.raises(UserError, match="PGPASSWORD") as caught:
        arguments(params_from_dict(raw_params), raw_data="x")
    assert "secret@" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """Two workers on one study, kept by a journal in a folder that both see."""
    folder = tmp_path_factory.mktemp("tune")
    tiny["tune"] = {
        "losses": ["ce", "cdw_ce"],
        "workers": 2,
        "pruner": "none",
        "trials": 2,
        "repeats": 1,
        "confirm": 2,
        "storage": str(folder / "study.log"),
    }
    tiny["compare"]["baseline"] = "ce-tuned"
    working_folder(folder, tiny)
    done = pipeline_run(folder, "tune_loss")
    assert done.returncode == 0, done.stdout + done.stderr
    return newest_run(folder, "tune_loss"), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_finish_one_study_between_them(run):
    folder, _ = run
    finished = [read(path) for path in folder.glob("for-loop-*/tune-worker/executor_output.json")]
    metadata = [entry["artifacts"]["metrics"]["artifacts"][0]["metadata"] for entry in finished]
    assert sorted(entry["number"] for entry in metadata) == [0, 1]
    best = yaml.safe_load((folder / "collect-study" / "study" / "best.yaml").read_text())
    trials = pd.read_csv(folder / "collect-study" / "study" / "trials.csv")
    assert len(trials) >= 2 * 2  # as many of the baseline as of the loss
    assert best["verdict"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_was_found_is_what_was_trained_and_compared(run):
    folder, _ = run
    study = folder / "collect-study" / "study"
    found = {name: yaml.safe_load((study / f"{name}.yaml").read_text()) for name in ("best", "baseline")}
    cards = [read(path) for path in folder.glob("for-loop-*/train-model/model/model.json")]
    by_loss = {card["loss"]["name"]: card for card in cards}
    params = {name: card["loss"]["params"] for name, card in by_loss.items()}
    assert set(params) == {"ce", "cdw_ce", "ce-tuned", "cdw_ce-tuned"}
    assert params["cdw_ce-tuned"] == found["best"]["params"]
    assert params["cdw_ce"]["power"] == 2.0
    for name, file in (("ce-tuned", "baseline"), ("cdw_ce-tuned", "best")):
        assert by_loss[name]["tuned"]["study"] == found[file]["study"]["name"]
        assert all(by_loss[name]["train"][key] == value for key, value in found[file]["train"].items())
    comparison = read(folder / "compare-models" / "comparison" / "comparison.json")
    assert set(comparison["losses"]) == set(params)
    assert read(folder / "register-model" / "registration" / "registered.json")["registered"] is True


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_ends_with_the_verdict_and_the_table(run):
    folder, stdout = run
    best = yaml.safe_load((folder / "collect-study" / "study" / "best.yaml").read_text())
    assert best["verdict"] in stdout
    assert "cdw_ce-tuned" in stdout[stdout.index("notify-exit: done") :]
    assert "registered: phantom-severity version 1" in stdout
