import copy
import inspect
import json

import pytest
import yaml

from raregrade.config import params_from_dict, section, section_keys
from raregrade.kubeflow.compile import NAMES, arguments_of, load_pipeline
from raregrade.kubeflow.pipelines.tasks import loop_items
from raregrade.kubeflow.task_io import section_from_argument


@pytest.fixture
def params(raw_params):
    return params_from_dict(raw_params)


@pytest.fixture
def tuning_params(raw_params):
    """Parameters that every pipeline can run with: they also name a loss to tune, and its baseline."""
    compare = raw_params["compare"] | {"baseline": "ce-tuned"}
    tune = {"losses": ["ce", "cdw_ce"], "min_epochs": 1}
    return params_from_dict(raw_params | {"tune": tune, "compare": compare})


def compared(raw):
    return arguments_of("compare_losses", params_from_dict(raw), raw_data="data/raw/phantom", data_revision="r1")


# The argument of the pipeline that carries the section of each step.
ARGUMENT = {"prepare": "prepare", "train": "runs", "evaluate": "evaluate", "compare": "compare", "register": "register"}

# One change under each key of params.yaml that a step may read.
CHANGES = {
    "seed": lambda raw: raw.update(seed=36),
    "data": lambda raw: raw["data"].update(image_size=48),
    "train": lambda raw: raw["train"].update(epochs=2),
    "train.selection_metric": lambda raw: raw["train"].update(selection_metric="mae"),
    "losses.cdw_ce": lambda raw: raw["losses"]["cdw_ce"].update(power=3.0),
    "evaluate": lambda raw: raw.update(evaluate={"batch_size": 7}),
    "compare": lambda raw: raw["compare"].update(confidence=0.9),
    "gate": lambda raw: raw["gate"][0].update(threshold=0.1),
    "register": lambda raw: raw["register"].update(name="other"),
    "phantom": lambda raw: raw["phantom"].update(patients=41),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_of_a_key_reaches_the_steps_that_read_it_and_no_other(raw_params, key):
    before = compared(raw_params)
    changed = copy.deepcopy(raw_params)
    CHANGES[key](changed)
    after = compared(changed)
    reached = {step for step, argument in ARGUMENT.items() if before[argument] != after[argument]}
    read = {step for step in ARGUMENT if any(key == k or key.startswith(f"{k}.") for k in section_keys(step, "cdw_ce"))}
    assert reached == read


def test_a_change_of_one_loss_leaves_the_items_of_the_others_alone(raw_params):
    before = compared(raw_params)["runs"]
    raw_params["losses"]["cdw_ce"]["power"] = 3.0
    after = compared(raw_params)["runs"]
    assert [item["loss"] for item, other in zip(before, after, strict=True) if item != other] == ["cdw_ce", "cdw_ce"]


def test_there_is_one_item_for_each_loss_and_seed(params):
    items = [(item["loss"], item["seed"]) for item in loop_items(params)]
    assert items == [("ce", 1), ("ce", 2), ("cdw_ce", 1), ("cdw_ce", 2)]


def test_only_the_losses_of_the_comparison_are_trained(raw_params):
    raw_params["losses"]["lmf"] = {}
    assert {item["loss"] for item in compared(raw_params)["runs"]} == {"ce", "cdw_ce"}


def test_every_section_arrives_as_it_was(params):
    arguments = arguments_of("compare_losses", params, raw_data="x")
    through_kubeflow = json.loads(json.dumps(arguments), parse_int=float)  # which holds every number as a double
    for step in ("prepare", "evaluate", "compare", "register"):
        expected = section(params, step)
        assert section_from_argument(type(expected), through_kubeflow[step]) == expected
    for item in through_kubeflow["runs"]:
        expected = section(params, "train", item["loss"])
        assert section_from_argument(type(expected), item["section"]) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_are_those_of_the_pipeline(tuning_params, name):
    signature = inspect.signature(load_pipeline(name).pipeline_func)
    assert list(arguments_of(name, tuning_params, raw_data="x")) == list(signature.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_of_a_repository_are_named_by_its_revision(tuning_params, name):
    arguments = arguments_of(
        name, tuning_params, raw_data="data/raw", data_repo="https://git.example/data", data_revision="v2"
    )
    assert (arguments["data_repo"], arguments["data_revision"]) == ("https://git.example/data", "v2")


def test_data_that_dvc_does_not_track_are_never_taken_from_the_cache(params, tmp_path):
    revisions = {arguments_of("compare_losses", params, raw_data=str(tmp_path))["data_revision"] for _ in range(3)}
    assert len(revisions) == 3


def test_data_that_dvc_tracks_are_known_by_their_md5(params, tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    lock = {"schema": "2.0", "stages": {"phantom": {"cmd": "x", "outs": [{"path": "raw", "md5": "0123abc.dir"}]}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    (tmp_path / "raw").mkdir()
    arguments = arguments_of("compare_losses", params, raw_data=str(tmp_path / "raw"))
    assert arguments["data_revision"] == "0123abc.dir"
