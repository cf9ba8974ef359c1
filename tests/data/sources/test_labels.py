"""Label cells: several names in one cell, uncertain and blank labels, and what is written down about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raregrade.config import DataConfig
from raregrade.data.sources.labels import LabelReader
from raregrade.errors import DataError

CLASSES = ["Effusion", "Infiltration", "Mass"]


def reader(**keys: Any) -> LabelReader:
    section = {"source": "folder", "path": "raw", "task": "multilabel", "classes": CLASSES}
    config = DataConfig.model_validate(section | keys)
    columns = (config.label_column,) if isinstance(config.label_column, str) else tuple(CLASSES)
    return LabelReader(config, columns)


def separated(**keys: Any) -> LabelReader:
    return reader(label_column="Finding Labels", label_separator="|", **keys)


def read(labels: LabelReader, *cells: str) -> list[float]:
    row = {"Finding Labels": cells[0]} if len(cells) == 1 else dict(zip(CLASSES, cells, strict=True))
    values = labels.read(row, "t.csv, line 2")
    assert isinstance(values, tuple)
    return list(values)


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("Effusion|Infiltration", [1, 1, 0]),
        ("Mass", [0, 0, 1]),
        (" Mass | Effusion ", [1, 0, 1]),
        ("No Finding", [0, 0, 0]),
        ("Fibrosis|Mass", [0, 0, 1]),
    ],
)
def test_one_cell_names_all_classes_of_an_image(cell: str, values: list[float]) -> None:
    assert read(separated(negative_names=["No Finding", "Fibrosis"]), cell) == values


def test_a_name_that_is_neither_class_nor_negative_is_refused() -> None:
    with pytest.raises(DataError, match=r"line 2: 'Hernia' .* is not a class; .*data\.negative_names"):
        read(separated(negative_names=["No Finding"]), "Mass|Hernia")


def test_a_blank_cell_of_names_is_unknown_unless_blanks_are_zeros() -> None:
    with pytest.raises(DataError, match=r"every label \(Finding Labels\) is empty"):
        read(separated(), "")
    assert read(separated(blank="zeros"), "") == [0, 0, 0]


def test_none_may_be_a_name_that_stands_for_no_class() -> None:
    assert read(separated(negative_names=["None"]), "None") == [0, 0, 0]


@pytest.mark.parametrize(("policy", "value"), [("zeros", 0), ("ones", 1), ("ignore", np.nan)])
def test_uncertain_labels_follow_their_policy_and_are_counted(policy: str, value: float) -> None:
    labels = reader(uncertain=policy)
    np.testing.assert_array_equal(read(labels, "-1.0", "1", "-1"), [value, 1, value])
    words = {"zeros": "read as 0", "ones": "read as 1", "ignore": "left out of losses and metrics"}[policy]
    assert [f.text for f in labels.findings()] == [f"2 uncertain labels (-1) are {words} (data.uncertain: {policy})"]
    assert labels.provenance() == {
        "labels": {"uncertain": {"policy": policy, "cells": 2}, "blank": {"policy": "ignore", "cells": 0}}
    }


def test_uncertain_labels_are_refused_by_default_with_the_key_to_set() -> None:
    with pytest.raises(
        DataError, match=r"label '-1\.0' \(column 'Effusion'\); .*data\.uncertain: zeros, ones or ignore"
    ):
        read(reader(), "-1.0", "1", "0")


@pytest.mark.parametrize(("policy", "value", "said"), [("zeros", 0, 1), ("ignore", np.nan, 0)])
def test_blank_labels_follow_their_policy(policy: str, value: float, said: int) -> None:
    labels = reader(blank=policy)
    np.testing.assert_array_equal(read(labels, "", "1", "NA"), [value, 1, value])
    assert len(labels.findings()) == said
    assert labels.provenance()["labels"]["blank"] == {"policy": policy, "cells": 2}  # type: ignore[index]


def test_blank_labels_can_be_refused() -> None:
    with pytest.raises(DataError, match=r"line 2: the label \(column 'Infiltration'\) is blank; set data\.blank"):
        read(reader(blank="refuse"), "0", "", "1")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"label_column": "Finding Labels"}, "set data.label_separator"),
        ({"label_column": ["x", "y", "x"]}, "'x' is given more than once; .*set label_column: 'x' and label_separator"),
        ({"label_column": "x", "label_separator": ""}, "is blank; YAML needs quotes around a vertical bar"),
        ({"label_separator": "|"}, "label_separator: needs task multilabel and one label_column"),
        ({"task": "multiclass", "label_separator": "|", "label_column": "x"}, "label_separator: needs task multilabel"),
        ({"negative_names": ["No Finding"]}, "negative_names: has a meaning only with label_separator"),
        ({"label_column": "x", "label_separator": "|", "negative_names": ["Mass "]}, "'Mass' is one of classes"),
        ({"task": "multiclass", "uncertain": "ones"}, "only for task multilabel, not multiclass"),
        ({"task": "multiclass", "blank": "zeros"}, "only for task multilabel, not multiclass"),
        (
            {"label_column": "x", "label_separator": "|", "uncertain": "ones"},
            "uncertain: has a meaning only for columns",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        reader(**keys)
