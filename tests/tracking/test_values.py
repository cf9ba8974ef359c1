"""Whatever a class is called and however long a value is, MLflow's own checks accept what is sent."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.tracking import DatasetIdentity
from raregrade.tracking.values import dataset_input, flatten_params, metric_values, safe_name, safe_names, tag_values


@given(st.text(min_size=1, max_size=300))
def test_every_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name

    safe = safe_name(name)
    _validate_metric_name(safe)
    assert 0 < len(safe) <= MAX_ENTITY_KEY_LENGTH


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=20))
def test_different_names_stay_different(names: list[str]) -> None:
    assert len(set(safe_names(names).values())) == len(names)


@pytest.mark.parametrize("name", ["val_qwk", "f1_Mélanome", "auroc/lung opacity", "val_f1_grade-3.5"])
def test_a_name_that_mlflow_takes_is_kept(name: str) -> None:
    assert safe_name(name) == name


def test_names_that_would_collide_get_a_number() -> None:
    assert safe_names(["f1_≥3", "f1__3"]) == {"f1__3": "f1__3", "f1_≥3": "f1__3_2"}


def test_metrics_that_are_not_finite_are_left_out() -> None:
    logged = metric_values({"a": 1.0, "b": float("nan"), "c": float("inf"), "d": 0}, step=3)
    assert [(name, value, step) for name, value, _, step in logged] == [("a", 1.0, 3), ("d", 0.0, 3)]


def test_nested_parameters_become_dotted_names() -> None:
    flat = flatten_params({"train": {"lr": 0.1, "augment": {"flip": True}}, "seeds": [1, 2], "none": None, "e": {}})
    assert flat == {"train.lr": "0.1", "train.augment.flip": "true", "seeds": "[1, 2]", "none": "null", "e": "{}"}


def test_long_values_are_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        flat = flatten_params({"classes": "x" * 7000})
        tags = tag_values({"note": "y" * 9000})
    assert len(flat["classes"]) == 6000
    assert len(tags["note"]) == 8000
    assert [r.message.split(" has ")[0] for r in caplog.records] == ["parameter classes", "tag note"]


def test_the_digest_of_a_dataset_is_its_dvc_md5_and_fits() -> None:
    md5 = "d41d8cd98f00b204e9800998ecf8427e.dir"
    tracked = dataset_input(DatasetIdentity("c" * 64, md5, "phantom", 12), "train")
    assert tracked.dataset.digest == md5
    assert tracked.tags[0].value == "training"
    assert json.loads(tracked.dataset.profile) == {"num_rows": 12}
    untracked = dataset_input(DatasetIdentity("c" * 64, None, "phantom", 12), "evaluate")
    assert untracked.dataset.digest == "c" * 36
