"""Reading a phantom back: the labels of its table, its masks, and the label space it was drawn with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raregrade.config import DataConfig
from raregrade.data.phantom import PHANTOM_LABELS
from raregrade.data.sources import read_source
from raregrade.errors import ConfigError, DataError

Config = Callable[..., DataConfig]


@pytest.mark.parametrize("flavour", PHANTOM_LABELS)
def test_labels_groups_and_masks_are_those_of_the_files(
    phantoms: dict[str, Path], phantom_config: Config, flavour: str
) -> None:
    root, space = phantoms[flavour], PHANTOM_LABELS[flavour]
    table = pd.read_csv(root / "labels.csv", keep_default_na=False)
    records = read_source(phantom_config(root, flavour, image_size=24)).records
    assert [r.group_id for r in records] == list(table["patient_id"])
    if flavour == "hierarchical":
        assert [r.label for r in records] == [tuple(map(float, row)) for row in table[list(space.classes)].to_numpy()]
    else:
        column = {"ordinal": "grade", "imbalanced": "class"}[flavour]
        assert [space.classes[r.label] for r in records] == list(table[column])  # type: ignore[index]
    for record in records[:5]:
        assert record.load_mask is not None
        mask = np.asarray(Image.open(root / "masks" / f"{record.image_id}.png")) > 0
        assert np.array_equal(record.load_mask(), mask)


def test_another_flavour_than_the_configuration_says_is_refused(
    phantoms: dict[str, Path], phantom_config: Config
) -> None:
    with pytest.raises(DataError, match=r"the phantom there has task ordinal.*under data: there is task multiclass"):
        read_source(phantom_config(phantoms["ordinal"], "imbalanced"))


def test_no_phantom_says_how_to_draw_one(tmp_path: Path, phantom_config: Config) -> None:
    with pytest.raises(DataError, match=r"no phantom there\. Draw one with `raregrade phantom"):
        read_source(phantom_config(tmp_path, "ordinal"))


@pytest.mark.parametrize("content", ["{", "[]", '{"label_space": 3}'])
def test_a_damaged_description_is_refused(tmp_path: Path, phantom_config: Config, content: str) -> None:
    (tmp_path / "phantom.json").write_text(content)
    with pytest.raises(DataError):
        read_source(phantom_config(tmp_path, "ordinal"))


def test_a_missing_mask_is_refused(phantoms: dict[str, Path], tmp_path: Path, phantom_config: Config) -> None:
    shutil.copytree(phantoms["ordinal"], tmp_path / "p")
    next(iter(sorted((tmp_path / "p" / "masks").iterdir()))).unlink()
    with pytest.raises(DataError, match=r"labels\.csv, line 2: no mask file"):
        read_source(phantom_config(tmp_path / "p", "ordinal"))


def test_columns_cannot_be_chosen(phantoms: dict[str, Path], phantom_config: Config) -> None:
    with pytest.raises(ConfigError, match="are fixed for source phantom"):
        read_source(phantom_config(phantoms["ordinal"], "ordinal", group_column="patient_id"))
