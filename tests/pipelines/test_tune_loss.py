"""``tune_loss``: its arguments, and a run of it with two workers on one study."""

import pandas as pd
import pytest
import yaml

from pipelines.tune_loss import arguments
from raregrade.config import params_from_dict, section
from raregrade.errors import UserError
from raregrade.steps.kubeflow import from_wire, to_wire
from tests.pipelines.local_pipelines import newest_run, pipeline_run, read, working_folder


@pytest.fixture
def params(raw_params):
    raw_params["tune"] = {"losses": ["cdw_ce"], "workers": 2}
    return params_from_dict(raw_params)


def test_what_is_found_is_trained_beside_the_loss_as_it_is_and_the_baseline(params):
    runs = arguments(params, raw_data="x")["runs"]
    assert [(run["loss"], run.get("tuned", False), run["seed"]) for run in runs] == [
        ("ce", False, 1),
        ("ce", False, 2),
        ("cdw_ce", False, 1),
        ("cdw_ce", False, 2),
        ("cdw_ce", True, 1),
        ("cdw_ce", True, 2),
    ]
    compare = arguments(params, raw_data="x")["compare"]["compare"]
    assert (compare["losses"], compare["baseline"]) == (["ce", "cdw_ce", "cdw_ce-tuned"], "ce")


def test_a_tuned_baseline_stands_against_itself_as_it_is(raw_params):
    raw_params["tune"] = {"losses": ["ce"]}
    made = arguments(params_from_dict(raw_params), raw_data="x")
    assert made["compare"]["compare"]["losses"] == ["ce", "ce-tuned"]


def test_every_worker_has_the_same_study_and_a_number_of_its_own(params):
    made = arguments(params, raw_data="x")
    assert made["workers"] == [{"number": 0}, {"number": 1}]
    expected = section(params, "tune", "cdw_ce")
    assert from_wire(type(expected), made["tune"]) == expected
    assert made["storage"] == to_wire(params.tune.study_storage())


@pytest.mark.parametrize("losses", [[], ["ce", "cdw_ce"]])
def test_it_tunes_one_loss(raw_params, losses):
    raw_params["tune"] = {"losses": losses}
    with pytest.raises(UserError, match=r"tune_loss tunes one loss, tune.losses names (none|ce, cdw_ce)\..*--set"):
        arguments(params_from_dict(raw_params), raw_data="x")


def test_a_password_never_becomes_an_argument(raw_params):
    raw_params["tune"] = {"losses": ["cdw_ce"], "storage": "postgresql://me:secret@db/optuna"}
    with pytest.raises(UserError, match="PGPASSWORD") as caught:
        arguments(params_from_dict(raw_params), raw_data="x")
    assert "secret@" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """Two workers on one study, kept by a journal in a folder that both see."""
    folder = tmp_path_factory.mktemp("tune")
    tiny["tune"] = {
        "losses": ["cdw_ce"],
        "workers": 2,
        "trials": 2,
        "repeats": 1,
        "confirm": 2,
        "storage": str(folder / "study.log"),
    }
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
    best = yaml.safe_load((folder / "collect-study" / "study" / "best.yaml").read_text())
    cards = [read(path) for path in folder.glob("for-loop-*/train-model/model/model.json")]
    params = {card["loss"]["name"]: card["loss"]["params"] for card in cards}
    assert set(params) == {"ce", "cdw_ce", "cdw_ce-tuned"}
    assert params["cdw_ce-tuned"] == best["params"]
    assert params["cdw_ce"]["power"] == 2.0
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
