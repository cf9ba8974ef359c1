"""Verifying: each kind of damage, done to a sound dataset, is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raregrade.config import DataConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.prepare import prepare_dataset
from raregrade.data.verify import dataset_warnings, verify_dataset
from raregrade.errors import DataError

Damage = Callable[[pd.DataFrame], None]


@pytest.fixture
def root(phantoms: dict[str, Path], phantom_config: Callable[..., DataConfig], tmp_path: Path) -> Path:
    prepare_dataset(phantom_config(phantoms["ordinal"], "ordinal"), 1, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def findings_root(phantoms: dict[str, Path], phantom_config: Callable[..., DataConfig], tmp_path: Path) -> Path:
    prepare_dataset(phantom_config(phantoms["hierarchical"], "hierarchical"), 1, tmp_path / "out")
    return tmp_path / "out"


def change_manifest(root: Path, change: Damage) -> list[str]:
    path = root / "manifest.parquet"
    manifest = pd.read_parquet(path)
    change(manifest)
    manifest.to_parquet(path)
    return verify_dataset(root)


def test_a_sound_dataset_has_no_problems(root: Path) -> None:
    assert verify_dataset(root) == []


def test_a_changed_pixel_is_found(root: Path) -> None:
    shard = np.load(root / "images" / "00000.npy", mmap_mode="r+")
    shard[7, 0, 0, 0] ^= 1
    shard.flush()
    image_id = PreparedDataset.open(root).manifest["image_id"][7]
    assert verify_dataset(root) == [f"row 7 ({image_id}): its pixels are not those of its sha256"]


def test_a_changed_mask_is_found(root: Path) -> None:
    masks = np.load(root / "masks" / "00000.npy", mmap_mode="r+")
    masks[0, 0, 0] ^= True
    masks.flush()
    assert verify_dataset(root) == ["dataset.json: content_hash is not that of manifest, label space and masks"]


def test_a_missing_shard_is_found(root: Path) -> None:
    (root / "images" / "00000.npy").unlink()
    assert "no shard" in verify_dataset(root)[0]


def test_a_group_in_two_splits_is_found(root: Path) -> None:
    manifest = PreparedDataset.open(root).manifest
    sizes = manifest[manifest["split"] == "train"].groupby("group_id").size()
    group = sizes[sizes > 1].index[0]
    row = int(np.flatnonzero(manifest["group_id"] == group)[0])

    def move(table: pd.DataFrame) -> None:
        table.loc[row, ["split", "fold"]] = ["test", -1]

    problems = change_manifest(root, move)
    assert any(p.startswith(f"group {group!r} is in splits ") for p in problems)
    assert "dataset.json: content_hash is not that of manifest, label space and masks" in problems
    assert any(p.startswith("dataset.json: counts is ") for p in problems)


def test_identical_pixels_in_two_splits_are_found_with_conflicting_labels(root: Path) -> None:
    dataset = PreparedDataset.open(root)
    manifest = dataset.manifest
    a = int(dataset.rows("train")[0])
    b = next(int(r) for r in dataset.rows("test") if manifest["label"][r] != manifest["label"][a])

    def copy(table: pd.DataFrame) -> None:
        table.loc[b, "sha256"] = table.loc[a, "sha256"]

    ids = sorted([(a, "train"), (b, "test")])
    named = ", ".join(f"{manifest['image_id'][r]} ({s})" for r, s in ids)
    problems = change_manifest(root, copy)
    assert f"images with identical pixels lie in different splits: {named}" in problems
    assert f"images with identical pixels have different labels: {named}" in problems


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 4, "row 3 (p00000_3): label is 4; allowed: 0 to 3"),
        ("label", -1, "row 3 (p00000_3): label is -1; allowed: 0 to 3"),
        ("split", "holdout", "unknown split holdout; allowed: train, val, test"),
        ("image_id", "p00000_0", "image_id 'p00000_0' is given more than once"),
        ("fold", 9, "group 'p00000' is in 2 folds"),
    ],
)
def test_a_wrong_cell_is_found(root: Path, column: str, value: object, message: str) -> None:
    manifest = PreparedDataset.open(root).manifest
    assert manifest["image_id"][3] == "p00000_3", "the phantom's first patient has four images"

    def change(table: pd.DataFrame) -> None:
        table.loc[3, column] = value

    assert message in change_manifest(root, change)


def test_a_fold_in_test_is_found(root: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        table["fold"] = 0

    expected = f"{len(PreparedDataset.open(root).rows('test'))} images have fold -1 outside test, or a fold in test"
    assert expected in change_manifest(root, change)


def test_a_class_and_a_split_without_images_are_found(root: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        table.loc[table["label"] == 3, "label"] = 2
        table.loc[table["split"] == "val", "split"] = "train"

    problems = change_manifest(root, change)
    assert "split val has no images" in problems
    assert "class 'severe' has no images in split train" in problems


def test_wrong_counts_are_found(root: Path) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_images": 3}))
    n = len(PreparedDataset.open(root))
    assert verify_dataset(root) == [f"dataset.json: num_images is 3, the manifest has {n}"]


def test_wrong_multilabel_values_are_found(findings_root: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        labels = [c for c in table.columns if c.startswith("label_")]
        table.loc[0, "label_nodule"] = 2.0
        table.loc[1, labels] = np.nan

    ids = PreparedDataset.open(findings_root).manifest["image_id"]
    problems = change_manifest(findings_root, change)
    assert f"row 0 ({ids[0]}): label_nodule is 2; allowed: 0 to 1" in problems
    assert f"row 1 ({ids[1]}): every label is unknown" in problems


def test_many_problems_of_a_kind_are_counted(root: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        table["label"] = 9

    problems = change_manifest(root, change)
    n = len(PreparedDataset.open(root))
    assert f"and {n - 10} more like the last one" in problems


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no dataset\.json"):
        verify_dataset(tmp_path)


def test_identical_pixels_in_two_folds_are_found(root: Path) -> None:
    manifest = PreparedDataset.open(root).manifest
    train = manifest["split"] == "train"
    a, b = (int(np.flatnonzero(train & (manifest["fold"] == fold))[0]) for fold in (0, 1))

    def copy(table: pd.DataFrame) -> None:
        table.loc[b, "sha256"] = table.loc[a, "sha256"]

    ids = sorted([(a, 0), (b, 1)])
    named = ", ".join(f"{manifest['image_id'][r]} ({fold})" for r, fold in ids)
    assert f"images with identical pixels lie in different folds: {named}" in change_manifest(root, copy)


def test_what_prepare_accepts_is_a_warning_and_no_problem(findings_root: Path) -> None:
    path = findings_root / "manifest.parquet"
    manifest = pd.read_parquet(path)
    manifest.loc[2, [c for c in manifest.columns if c.startswith("label_")]] = 0.0
    manifest.loc[2, "label_nodule"] = 1.0
    manifest.to_parquet(path)
    info = json.loads((findings_root / "dataset.json").read_text())
    hashed = PreparedDataset.open(findings_root).computed_hash()
    (findings_root / "dataset.json").write_text(
        json.dumps(info | {"content_hash": hashed, "warnings": ["an earlier one"]})
    )
    assert verify_dataset(findings_root) == []
    assert dataset_warnings(PreparedDataset.open(findings_root)) == [
        "an earlier one",
        f"1 images have nodule = 1 and its parent opacity = 0 (first: {manifest['image_id'][2]})",
    ]


def test_a_dataset_of_an_earlier_version_is_sound(root: Path) -> None:
    path = root / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in info.items() if k not in {"unit", "num_groups", "waived"}}))
    assert verify_dataset(root) == dataset_warnings(PreparedDataset.open(root)) == []
