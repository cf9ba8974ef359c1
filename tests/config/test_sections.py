"""A section holds exactly what ``section_keys`` names.

With more, DVC would keep results that a change has made stale; with less, it would throw results away.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from raregrade.config import Params, StepVersions, params_from_dict, section, section_keys
from raregrade.errors import ConfigError

STEPS = ("phantom", "prepare", "train", "tune", "train_tuned", "evaluate", "compare", "register")
LOSS = "cdw_ce"

# Another valid value for keys where adding to the number or flipping the boolean gives none.
OTHER: dict[str, Any] = {
    "raregrade.version": "9.9.9",
    **{f"raregrade.steps.{step}": "9.9.9" for step in StepVersions.model_fields},
    "phantom.flavour": "imbalanced",
    "data.source": "medmnist",
    "data.task": "multiclass",
    "data.classes": ["none", "mild", "grave"],
    "data.color": "grey",
    "data.split.column": "split",
    "data.label_column": "grade",
    "data.group_column": "patient",
    "train.stem": "small",
    "train.optimizer": "sgd",
    "train.schedule": "constant",
    "train.freeze": ["layer1"],
    "train.early_stopping": 5,
    "train.lr_min": 1e-5,
    "train.gradient_clip": 1.0,
    "train.ema": 0.999,
    "train.sampler": "class_balanced",
    "train.selection_metric": "accuracy",
    "train.precision": "float32",
    "evaluate.decision": "median",
    "evaluate.costs": [[0, 1, 2], [1, 0, 1], [2, 1, 0]],
    "compare.losses": ["plain", "ce"],
    "compare.seeds": [3],
    "compare.baseline": "plain-tuned",
    "tune.objective": "accuracy",
    "tune.over": "folds",
    "tune.pruner": "none",
    "tune.losses": ["plain", "ce"],
    "tune.warm_start": ["earlier.yaml"],
    "losses.plain.kind": "weighted_ce",
    "gate": [{"metric": "val_f1_mild", "threshold": 0.1}],
    "alarms.guard": ["mild"],
    "register.when": "best",
}
# What cannot be changed alone without breaking a rule across keys.
FIXED = {
    "data.hierarchy",
    "losses.strong.kind",
    "evaluate.sensitivity",
    "data.label_separator",
    "data.negative_names",
    "data.uncertain",
    "data.blank",
}


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from leaves(below, f"{key}.{name}" if key else name)
    else:
        yield key, value


def other_value(key: str, value: Any) -> Any:
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 + 0.001
    if isinstance(value, str):
        return "dead_zone" if value == "tighten" else "tighten" if value == "dead_zone" else value + "x"
    raise AssertionError(f"{key} = {value!r}: say in OTHER what else it may be")


def with_value(raw: dict[str, Any], key: str, value: Any) -> Params:
    raw = copy.deepcopy(raw)
    *parents, last = key.split(".")
    node = raw
    for part in parents:
        node = node[part]
    node[last] = value
    return params_from_dict(raw)


def covers(keys: tuple[str, ...], key: str) -> bool:
    return any(key == k or key.startswith(k + ".") for k in keys)


@pytest.mark.parametrize("step", STEPS)
def test_a_change_alters_only_sections_of_steps_that_read_the_key(valid: dict[str, Any], step: str) -> None:
    # Losses and a metric that fit every task, so that the task too can be changed alone.
    valid["losses"]["plain"] = {"kind": "ce"}
    valid["compare"]["losses"] = ["ce", "plain"]
    valid["gate"] = [{"metric": "val_f1_none", "threshold": 0.1}]
    valid["tune"] = {"space": {"train": {"lr": 0.01}}, "losses": ["ce", "plain"]}
    valid["compare"]["baseline"] = "ce-tuned"
    before = params_from_dict(valid)
    raw = before.to_dict()
    keys = section_keys(step, LOSS)
    changed = 0
    for key, value in leaves(raw):
        if key in FIXED:
            continue
        after = with_value(raw, key, other_value(key, value))
        differs = section(after, step, LOSS) != section(before, step, LOSS)
        assert differs == covers(keys, key), f"{step}: {key}"
        changed += differs
    assert changed > 0


@pytest.mark.parametrize("step", STEPS)
def test_a_section_survives_a_round_trip_through_json(valid: dict[str, Any], step: str) -> None:
    value = section(params_from_dict(valid), step, LOSS)
    assert type(value).model_validate_json(value.model_dump_json()) == value


def test_the_section_of_train_holds_one_loss_alone(valid: dict[str, Any]) -> None:
    text = section(params_from_dict(valid), "train", "strong").model_dump_json()
    assert '"strong"' in text
    assert '"ce"' not in text


def test_keys_of_steps_run_per_loss_name_the_loss() -> None:
    assert section_keys("train", "lmf") == ("train", "losses.lmf")
    assert section_keys("train") == ("train", "losses.{loss}")


def test_unknown_loss_and_unknown_step_are_refused(valid: dict[str, Any]) -> None:
    params = params_from_dict(valid)
    with pytest.raises(ConfigError, match=r"loss 'lmf' is not defined under losses; defined: ce, cdw_ce, strong"):
        section(params, "train", "lmf")
    with pytest.raises(ConfigError, match=r"unknown step 'tain'; allowed: phantom, prepare, train"):
        section(params, "tain")
