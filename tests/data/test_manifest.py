"""Opening a prepared dataset: what is missing, cut short or contradictory is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.config import DataConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.prepare import prepare_dataset
from raregrade.errors import DataError


@pytest.fixture
def root(phantoms: dict[str, Path], phantom_config: Callable[..., DataConfig], tmp_path: Path) -> Path:
    prepare_dataset(phantom_config(phantoms["ordinal"], "ordinal"), 1, tmp_path / "out")
    return tmp_path / "out"


def change_info(root: Path, **keys: Any) -> None:
    path = root / "dataset.json"
    info = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in info.items() if v is not ...}, default=str))


def test_rows_of_the_three_splits_are_all_rows(root: Path) -> None:
    dataset = PreparedDataset.open(root)
    rows = [dataset.rows(s) for s in ("train", "val", "test")]
    assert all(r.dtype == np.int64 for r in rows)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(dataset)))


def test_an_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'validation'; allowed: train, val, test"):
        PreparedDataset.open(root).rows("validation")


def test_images_and_targets_come_in_the_order_asked_for(root: Path) -> None:
    dataset = PreparedDataset.open(root)
    rows = np.array([5, 2, 9])
    assert np.array_equal(dataset.images(rows), dataset.images(slice(None))[rows])
    assert dataset.images(rows).shape == (3, 16, 16, 1)
    assert np.array_equal(dataset.targets(rows), dataset.manifest["label"].to_numpy()[rows])
    assert dataset.targets(rows).dtype == np.int64


def test_masks_come_for_the_rows_that_have_one(root: Path) -> None:
    dataset = PreparedDataset.open(root)
    test, train = dataset.rows("test"), dataset.rows("train")
    mixed = np.array([test[3], train[0], test[1]])
    kept = dataset.masks(mixed)
    assert kept is not None
    assert kept[0].tolist() == [test[3], test[1]]
    every = dataset.masks(slice(None))
    assert every is not None
    assert np.array_equal(kept[1], every[1][[3, 1]])
    assert kept[1].dtype == np.bool_


def test_a_dataset_can_be_moved(root: Path, tmp_path: Path) -> None:
    before = PreparedDataset.open(root).images(slice(None))
    shutil.move(root, tmp_path / "elsewhere")
    assert np.array_equal(PreparedDataset.open(tmp_path / "elsewhere").images(slice(None)), before)


def test_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no dataset\.json. Run `raregrade prepare`"):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"schema": 2}, "schema 2, this version reads schema 1"),
        ({"content_hash": ...}, "missing or wrong key: KeyError"),
        ({"image_size": "large"}, "missing or wrong key"),
        ({"image_size": 20}, r"\(16, 16, 1\) uint8.*says \(20, 20, 1\)"),
        ({"images": "gone"}, "no shard"),
        ({"images": "s3://bucket/store"}, "the shards lie at s3://bucket/store"),
        ({"label_space": {"task": "ordinal"}}, "not a label space"),
        ({"masks": "images"}, r"rows\.npy: cannot be read"),
    ],
)
def test_a_wrong_description_is_refused(root: Path, keys: dict[str, Any], message: str) -> None:
    change_info(root, **keys)
    with pytest.raises(DataError, match=message):
        PreparedDataset.open(root)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_description_that_is_no_object_is_refused(root: Path, text: str) -> None:
    (root / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        PreparedDataset.open(root)


def test_a_manifest_cut_short_is_refused(root: Path) -> None:
    path = root / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"manifest\.parquet: cannot be read"):
        PreparedDataset.open(root)


def test_a_manifest_without_a_column_is_refused(root: Path) -> None:
    path = root / "manifest.parquet"
    pd.read_parquet(path).drop(columns="fold").to_parquet(path)
    with pytest.raises(DataError, match="column fold is missing; it has image_id"):
        PreparedDataset.open(root)


def test_a_manifest_of_another_length_is_refused(root: Path) -> None:
    path = root / "manifest.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(DataError, match="rows, the shards hold"):
        PreparedDataset.open(root)
