"""Reading params.yaml: YAML 1.2, overrides, and messages that name key, value and what is allowed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import load_params, params_from_dict
from raregrade.errors import ConfigError
from raregrade.losses import LOSSES

Change = Callable[[str, Any], dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path, valid: dict[str, Any]) -> Callable[..., Path]:
    """Write the valid configuration, with YAML text appended to it, as a parameters file."""

    def write_file(more: str = "") -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(valid, sort_keys=False) + more, encoding="utf-8")
        return path

    return write_file


def message_of(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        params_from_dict(raw)
    return str(caught.value)


def test_classes_keep_the_order_of_the_file(valid: dict[str, Any]) -> None:
    valid["data"]["classes"] = ["z", "a", "m"]
    assert params_from_dict(valid).data.label_space().classes == ("z", "a", "m")


def test_a_loss_of_another_name_takes_the_parameters_of_its_kind(valid: dict[str, Any]) -> None:
    strong = params_from_dict(valid).losses["strong"]
    assert (strong.name, strong.kind) == ("strong", "cdw_ce")
    assert strong.params == LOSSES["cdw_ce"].model_validate({"power": 5.0})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trian", {}, ["trian", "unknown key", "did you mean 'train'", "compare"]),
        ("train.epoch", 3, ["train.epoch", "did you mean 'epochs'", "batch_size"]),
        ("train.augment.flip", True, ["train.augment.flip", "unknown key", "horizontal_flip"]),
        ("data.split.train", 0.7, ["data.split.train", "unknown key", "val, test"]),
        ("losses.cdw_ce.powr", 3, ["losses.cdw_ce.powr", "did you mean 'power'", "margin"]),
        ("train.epochs", "3", ["train.epochs = '3'", "integer"]),
        ("train.epochs", 2.5, ["train.epochs = 2.5", "integer"]),
        ("train.epochs", True, ["train.epochs = True", "integer"]),
        ("train.lr", "fast", ["train.lr = 'fast'", "number"]),
        ("train.pretrained", 1, ["train.pretrained = 1", "bool"]),
        ("train.backbone", None, ["train.backbone = None", "string"]),
        ("train", None, ["train = None", "expected keys below it", "epochs"]),
        ("data.classes", "none", ["data.classes = 'none'", "list"]),
        ("data.classes", ["none", 1], ["data.classes.1 = 1", "string"]),
        ("data.label_column", 3, ["data.label_column = 3", "string, or", "list"]),
        ("gate", {"metric": "val_qwk"}, ["gate = ", "list"]),
        ("losses", ["ce"], ["losses = ['ce']", "one key a loss"]),
        ("losses.ce", 3, ["losses.ce = 3", "ce: {}"]),
        ("train.epochs", 0, ["train.epochs = 0", "greater than or equal to 1"]),
        ("train.lr", -1.0, ["train.lr = -1.0", "greater than 0"]),
        ("train.lr", float("nan"), ["train.lr = nan", "finite"]),
        ("train.optimizer", "lamb", ["train.optimizer = 'lamb'", "'adamw'", "'sgd'"]),
        ("data.task", "regression", ["data.task = 'regression'", "'ordinal'", "'multilabel'"]),
        ("data.split.val", 0.5, ["data.split.val = 0.5", "less than 0.5"]),
        ("losses.cdw_ce.power", 0, ["losses.cdw_ce.power = 0", "greater than 0"]),
        ("compare.seeds", [], ["compare.seeds = []", "at least 1"]),
        ("compare.seeds", [-1], ["compare.seeds.0 = -1", "greater than or equal to 0"]),
        ("register.name", "a/b", ["register.name: 'a/b' cannot name a model"]),
        ("losses.ldan", {}, ["losses.ldan", "unknown loss 'ldan'", "did you mean 'ldam'", "cdw_ce"]),
        ("losses.mine", {"kind": "foo"}, ["losses.mine.kind", "unknown loss 'foo'", "allowed: ce"]),
        ("losses.mine", {"kind": ["ce"]}, ["losses.mine.kind", "unknown loss ['ce']"]),
        ("losses.a/b", {"kind": "ce"}, ["losses.a/b", "letters, digits"]),
    ],
)
def test_wrong_key_type_or_range_names_key_value_and_what_is_allowed(
    changed: Change, key: str, value: Any, said: list[str]
) -> None:
    message = message_of(changed(key, value))
    for part in said:
        assert part in message


@pytest.mark.parametrize("key", ["data", "compare"])
def test_missing_section_without_default_is_named(valid: dict[str, Any], key: str) -> None:
    del valid[key]
    assert f"{key}: missing, and it has no default" in message_of(valid)


def test_every_problem_is_listed_at_once(valid: dict[str, Any]) -> None:
    valid["train"] = {"epochs": 0, "lr": "x"}
    valid["losses"]["cdw_ce"]["power"] = -1
    valid["colour"] = "red"
    lines = message_of(valid).splitlines()
    assert len(lines) == 1 + 4


def test_a_wrong_loss_is_not_also_called_undefined(changed: Change) -> None:
    message = message_of(changed("losses.cdw_ce.power", 99))
    assert "losses.cdw_ce.power = 99" in message
    assert "not defined" not in message


def test_no_value_however_odd_escapes_the_configuration_error(valid: dict[str, Any]) -> None:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v))
    text = json.dumps(valid)

    @given(key=st.sampled_from(sorted(valid)), value=values)
    def try_value(key: str, value: Any) -> None:
        raw = json.loads(text) | {key: value}
        with contextlib.suppress(ConfigError):
            params_from_dict(raw)

    try_value()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E+0", 1.0), (".5", 0.5), ("3.", 3.0), ("2", 2), ("+3", 3)],
)
def test_numbers_are_read_as_yaml_1_2_has_them(write: Callable[..., Path], text: str, value: float) -> None:
    assert load_params(write(f"train: {{weight_decay: {text}}}\n")).train.weight_decay == value


def test_a_leading_zero_does_not_make_an_octal_number(write: Callable[..., Path]) -> None:
    assert load_params(write("seed: 010\n")).seed == 10


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "No", "1:30", "1_000", "0x10"])
def test_words_that_yaml_1_1_converted_stay_words(write: Callable[..., Path], word: str) -> None:
    path = write("register: {name: demo}\n")
    assert load_params(path, [f"tracking.experiment={word}"]).tracking.experiment == word


@pytest.mark.parametrize("word", ["true", "True", "false"])
def test_true_and_false_are_booleans(write: Callable[..., Path], word: str) -> None:
    assert load_params(write(f"train: {{pretrained: {word}}}\n")).train.pretrained is (word.lower() == "true")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
        ("train: {epochs: 3, epochs: 4}\n", "the key 'epochs' is given twice"),
        ("train: [\n", "not valid YAML"),
        ("? [a, b]\n: 3\n", "cannot be a key"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("1: 2\n", "keys should be strings"),
    ],
)
def test_file_that_is_not_sound_yaml_is_refused(write: Callable[..., Path], text: str, said: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1\n", "word\n"])
def test_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected keys and values at the top"):
        load_params(path)


def test_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*--params"):
        load_params(tmp_path / "nowhere.yaml")


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(ConfigError, match="cannot read"):
        load_params(path)


def test_set_replaces_a_key_and_leaves_its_neighbours(write: Callable[..., Path]) -> None:
    path = write("train: {epochs: 7, lr: 0.5}\n")
    train = load_params(path, ["train.epochs=3", "train.backbone=resnet34"]).train
    assert (train.epochs, train.lr, train.backbone) == (3, 0.5, "resnet34")


def test_set_reaches_below_a_section_that_the_file_leaves_out_or_empty(write: Callable[..., Path]) -> None:
    params = load_params(
        write("train:\n"), ["train.augment.scale=0.2", "losses.soft.kind=cdw_ce", "losses.soft.power=1"]
    )
    assert params.train.augment.scale == 0.2
    assert params.losses["soft"].params == LOSSES["cdw_ce"].model_validate({"power": 1})


def test_set_takes_lists_and_values_with_equals_signs(write: Callable[..., Path]) -> None:
    params = load_params(write(), ["compare.losses=[ce]", "tracking.uri=postgresql://host/db?sslmode=require"])
    assert params.compare.losses == ["ce"]
    assert params.tracking.uri == "postgresql://host/db?sslmode=require"


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", ".epochs=3", "train.=3", ""])
def test_set_that_is_not_key_and_value_is_refused(write: Callable[..., Path], override: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key=value, such as train\.epochs=20"):
        load_params(write(), [override])


@pytest.mark.parametrize("override", ["gate.metric=val_mae", "seed.x=3", "data.path.deep.er=1"])
def test_set_below_a_value_is_refused(write: Callable[..., Path], override: str) -> None:
    with pytest.raises(ConfigError, match="holds a value, not keys"):
        load_params(write("seed: 1\n"), [override])


def test_set_is_validated_like_the_file(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs = 'many'"):
        load_params(write(), ["train.epochs=many"])


def test_parameters_survive_a_round_trip_through_a_dictionary(valid: dict[str, Any]) -> None:
    params = params_from_dict(valid)
    again = params_from_dict(json.loads(json.dumps(params.to_dict())))
    assert again == params
    assert again.to_dict() == params.to_dict()
