"""A store that remembers the datasets whose shards it keeps."""

from pathlib import Path

import numpy as np
import pytest

from raregrade.config import PrepareSection
from raregrade.data.known import recall
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError
from raregrade.steps.prepare import prepare
from raregrade.tracking import Tracking

NOWHERE = Tracking("none", "known")


@pytest.fixture
def prepared(image_folder, tmp_path):
    """A dataset prepared into a store, and the store."""
    section = PrepareSection(seed=1, data=image_folder.config())
    prepare(section, tmp_path / "out", store=tmp_path / "store", tracking=NOWHERE)
    return PreparedDataset.open(tmp_path / "out"), tmp_path / "store"


def test_a_dataset_is_found_by_hash_when_its_folder_is_gone(prepared):
    dataset, store = prepared
    images = dataset.images(slice(0, 3))
    for file in list(dataset.root.iterdir()):
        file.unlink()
    found = PreparedDataset.open(recall(store, dataset.content_hash))
    assert found.content_hash == dataset.content_hash
    assert found.manifest.equals(dataset.manifest)
    assert np.array_equal(found.images(slice(0, 3)), images)


def test_preparing_it_again_changes_nothing_in_the_store(prepared, image_folder, tmp_path):
    dataset, store = prepared
    stamps = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    section = PrepareSection(seed=1, data=image_folder.config())
    prepare(section, tmp_path / "again", store=store, previous=recall(store, dataset.content_hash), tracking=NOWHERE)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == stamps


def test_a_store_that_does_not_have_it_says_so(prepared):
    _, store = prepared
    with pytest.raises(DataError, match="is not a prepared dataset"):
        recall(store, "0" * 64)


def test_a_store_that_is_named_relative_to_here_is_found_from_elsewhere(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(PrepareSection(seed=1, data=image_folder.config()), Path("out"), store=Path("store"), tracking=NOWHERE)
    content_hash = PreparedDataset.open(Path("out")).content_hash
    folder = recall(Path("store"), content_hash)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(PreparedDataset.open(folder).images(slice(0, 1))) == 1
