"""The test split cannot be reached while parameters are tuned."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raregrade.data.manifest import MANIFEST_FILE, PreparedDataset
from raregrade.tuning.dataset import HeldOutTestError, TuningDataset
from raregrade.tuning.result import write_result
from raregrade.tuning.workers import work

from .conftest import MakePlan


@pytest.fixture
def dataset(prepared: Path) -> TuningDataset:
    return TuningDataset.open(prepared)  # type: ignore[return-value]


@pytest.fixture
def test_rows(prepared: Path) -> np.ndarray:
    return PreparedDataset.open(prepared).rows("test")


def test_train_and_validation_are_as_they_were(prepared: Path, dataset: TuningDataset) -> None:
    whole = PreparedDataset.open(prepared)
    for split in ("train", "val"):
        rows = dataset.rows(split)
        assert len(rows) > 0
        assert np.array_equal(rows, whole.rows(split))
        assert np.array_equal(dataset.targets(rows), whole.targets(rows))
        assert dataset.targets(rows).dtype == np.int64
        assert np.array_equal(dataset.images(rows), whole.images(rows))
        assert list(dataset.manifest["image_id"].iloc[rows]) == list(whole.manifest["image_id"].iloc[rows])


@pytest.mark.parametrize("ask", ["images", "targets", "masks"])
def test_asking_for_a_row_of_the_test_split_raises(dataset: TuningDataset, test_rows: np.ndarray, ask: str) -> None:
    with pytest.raises(HeldOutTestError, match="the test split cannot be reached"):
        getattr(dataset, ask)(test_rows[:1])
    with pytest.raises(HeldOutTestError):
        getattr(dataset, ask)(slice(None))


def test_asking_for_the_test_split_raises(dataset: TuningDataset) -> None:
    with pytest.raises(HeldOutTestError):
        dataset.rows("test")


def test_the_manifest_says_nothing_of_test_images_but_that_they_are(
    dataset: TuningDataset, test_rows: np.ndarray
) -> None:
    hidden = dataset.manifest.iloc[test_rows]
    assert (hidden["split"] == "test").all()
    assert hidden["label"].isna().all()
    assert (hidden[["image_id", "group_id", "source_path", "sha256"]] == "").all(axis=None)


def test_a_fold_validates_and_the_test_split_stays_out_of_reach(prepared: Path, test_rows: np.ndarray) -> None:
    dataset = TuningDataset.open(prepared, fold=1)
    whole = PreparedDataset.open(prepared, fold=1)
    assert np.array_equal(dataset.rows("val"), whole.rows("val"))
    assert np.array_equal(dataset.rows("train"), whole.rows("train"))
    assert not set(test_rows) & {*dataset.rows("val"), *dataset.rows("train")}
    with pytest.raises(HeldOutTestError):
        dataset.images(test_rows)


def poisoned(prepared: Path, folder: Path) -> Path:
    """The dataset with noise for test images and other labels for them; its content hash stands as it was."""
    shutil.copytree(prepared, folder)
    manifest = pd.read_parquet(folder / MANIFEST_FILE)
    test = (manifest["split"] == "test").to_numpy()
    manifest.loc[test, "label"] = (manifest.loc[test, "label"] + 1) % 4
    manifest.to_parquet(folder / MANIFEST_FILE)
    shards = sorted((folder / "images").glob("*.npy"))
    assert len(shards) == 1
    images = np.load(shards[0])
    images[test] = np.random.default_rng(1).integers(0, 256, images[test].shape, dtype=np.uint8)
    np.save(shards[0], images)
    return folder


@pytest.mark.slow
def test_poison_in_the_test_split_changes_nothing_of_a_study(plan: MakePlan, prepared: Path, tmp_path: Path) -> None:
    results = {}
    for name, data in (("clean", prepared), ("poisoned", poisoned(prepared, tmp_path / "poisoned"))):
        kept = plan().storage.model_copy(update={"url": str(tmp_path / f"{name}.log")})
        made = plan("ce", trials=2, objective="accuracy", data=data, storage=kept)
        work(made)
        results[name] = write_result(made, tmp_path / name)
        table = pd.read_csv(tmp_path / name / "trials.csv").drop(columns="seconds")
        results[name]["table"] = table.to_csv()
    assert results["clean"]["trial"]["value"] != 0
    assert results["clean"] == results["poisoned"]
