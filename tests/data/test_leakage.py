"""Preparing keeps copies of an image together, and what would leak from training into test stops it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import DataConfig
from raregrade.data.prepare import prepare_dataset
from raregrade.data.splits import join_alike
from raregrade.data.verify import dataset_warnings, verify_dataset
from raregrade.errors import DataError

if TYPE_CHECKING:
    from tests.data.conftest import ImageFolder

OWN_SPLIT = {"column": "part", "folds": 2}
WHY = "kept for comparison with publications"


def copy(folder: ImageFolder, source: str, *copies: str) -> None:
    for name in copies:
        (folder.root / f"images/{name}.png").write_bytes((folder.root / f"images/{source}.png").read_bytes())


@pytest.mark.parametrize("seed", range(6))
def test_patients_who_share_an_image_lie_in_one_split_and_fold(
    image_folder: ImageFolder, tmp_path: Path, seed: int
) -> None:
    copy(image_folder, "00_0", "03_0")  # of the same grade, as every third patient
    copy(image_folder, "01_1", "04_0")
    dataset = prepare_dataset(image_folder.config(split={"val": 0.2, "test": 0.2, "folds": 2}), seed, tmp_path / "out")
    homes = dataset.manifest.groupby("group_id")[["split", "fold"]].first()
    assert len(homes.loc[["p00", "p03"]].drop_duplicates()) == 1
    assert len(homes.loc[["p01", "p04"]].drop_duplicates()) == 1
    assert dataset.info["warnings"] == []
    assert verify_dataset(dataset.root) == []


def test_the_deal_is_the_same_without_shared_images(image_folder: ImageFolder, tmp_path: Path) -> None:
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "before").manifest
    copy(image_folder, "00_0", "00_1")  # within one patient
    after = prepare_dataset(image_folder.config(), 1, tmp_path / "after").manifest
    assert after["split"].tolist() == before["split"].tolist()
    assert after["fold"].tolist() == before["fold"].tolist()


def test_joined_patients_that_leave_too_few_for_a_class_are_named(image_folder: ImageFolder, tmp_path: Path) -> None:
    copy(image_folder, "00_0", "03_0", "06_0")
    with pytest.raises(DataError, match=r"'low' \(2\).*Patients that share an identical image are kept together"):
        prepare_dataset(image_folder.config(), 1, tmp_path / "out")


@pytest.mark.parametrize("new", ["p99", "a99"])
def test_a_new_patient_who_shares_an_image_joins_the_known_one(
    image_folder: ImageFolder, tmp_path: Path, new: str
) -> None:
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "before").manifest
    known = image_folder.table
    # With these shares a new patient would be dealt to test.
    shares = {"val": 0.05, "test": 0.49, "folds": 2}
    for name in known["filename"]:
        copy(image_folder, name[7:-4], "99_0")
        row = known[known["filename"] == name].assign(filename="images/99_0.png", patient=new)
        image_folder.table = pd.concat([known, row], ignore_index=True)
        config = image_folder.config(split=shares)
        after = prepare_dataset(config, 1, tmp_path / "after", previous=tmp_path / "before").manifest
        assert after["split"].iloc[-1] == before.loc[before["image_id"] == name, "split"].item()


def test_copies_in_known_patients_of_different_splits_are_refused(image_folder: ImageFolder, tmp_path: Path) -> None:
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "before").manifest
    train = before[before["split"] == "train"].iloc[0]
    name = before.loc[(before["split"] == "test") & (before["label"] == train["label"]), "image_id"].iloc[0]
    copy(image_folder, train["image_id"][7:-4], name[7:-4])
    with pytest.raises(DataError, match="images with identical pixels lie in different splits: "):
        prepare_dataset(image_folder.config(), 1, tmp_path / "after", previous=tmp_path / "before")


def own_split(folder: ImageFolder, *, val: bool = True) -> None:
    folder.table["part"] = ["train"] * 12 + ["val" if val else "train"] * 6 + ["test"] * 6


def test_a_given_split_that_separates_copies_names_the_key_to_waive(image_folder: ImageFolder, tmp_path: Path) -> None:
    own_split(image_folder)
    copy(image_folder, "00_0", "09_1")
    with pytest.raises(DataError) as caught:
        prepare_dataset(image_folder.config(split=OWN_SPLIT), 1, tmp_path / "out")
    first, rest = str(caught.value).split("\n")
    assert first == (
        "images with identical pixels lie in different splits: images/00_0.png (train), images/09_1.png (test)"
    )
    assert "data.waive: {identical_across_splits: <the reason>}" in rest
    assert not (tmp_path / "out").exists()


def test_a_waived_finding_stays_a_warning_with_its_reason(image_folder: ImageFolder, tmp_path: Path) -> None:
    own_split(image_folder)
    copy(image_folder, "00_0", "09_1")
    config = image_folder.config(split=OWN_SPLIT, waive={"identical_across_splits": WHY})
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    expected = (
        "waived: images with identical pixels lie in different splits: images/00_0.png (train), "
        f"images/09_1.png (test) (reason: {WHY})"
    )
    assert dataset.info["warnings"] == [expected]
    assert dataset.info["waived"] == {"identical_across_splits": WHY}
    assert verify_dataset(dataset.root) == []
    assert dataset_warnings(dataset) == [expected]


def test_copies_in_train_and_val_share_a_fold_although_waived(image_folder: ImageFolder, tmp_path: Path) -> None:
    own_split(image_folder)
    copy(image_folder, "00_0", "06_0")
    config = image_folder.config(split=OWN_SPLIT, waive={"identical_across_splits": WHY})
    for seed in range(6):
        manifest = prepare_dataset(config, seed, tmp_path / "out").manifest
        same = manifest[manifest["group_id"].isin(["p00", "p06"])]
        assert same["split"].tolist() == ["train", "train", "val", "val"]
        assert same["fold"].nunique() == 1


def test_val_dealt_from_an_own_split_keeps_copies_together(image_folder: ImageFolder, tmp_path: Path) -> None:
    own_split(image_folder, val=False)
    copy(image_folder, "00_0", "03_0")
    for seed in range(6):
        config = image_folder.config(split={"column": "part", "folds": 2, "val": 0.34})
        manifest = prepare_dataset(config, seed, tmp_path / "out").manifest
        assert manifest.loc[manifest["group_id"].isin(["p00", "p03"]), "split"].nunique() == 1


@pytest.mark.parametrize("waive", [{}, {"identical_across_splits": WHY}])
def test_copies_with_different_labels_are_refused_wherever_they_lie(
    image_folder: ImageFolder, tmp_path: Path, waive: dict[str, str]
) -> None:
    copy(image_folder, "00_0", "01_0")
    with pytest.raises(
        DataError, match=r"(?s)images with identical pixels have different labels: .*conflicting_labels: <"
    ):
        prepare_dataset(image_folder.config(waive=waive), 1, tmp_path / "out")
    config = image_folder.config(waive={"conflicting_labels": "two readers"})
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    assert [w.startswith("waived: ") and w.endswith("(reason: two readers)") for w in dataset.info["warnings"]] == [
        True
    ]
    assert dataset.manifest.loc[dataset.manifest["group_id"].isin(["p00", "p01"]), "split"].nunique() == 1
    assert verify_dataset(dataset.root) == []


def test_an_unknown_label_contradicts_nothing(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["x"], image_folder.table["y"] = ["1", "0"] * 12, ["0", "1"] * 12
    image_folder.table.loc[6, "y"] = ""
    copy(image_folder, "00_0", "03_0")
    config = image_folder.config(task="multilabel", classes=["x", "y"], label_column=None)
    assert prepare_dataset(config, 1, tmp_path / "out").info["warnings"] == []


def test_a_patient_column_that_nobody_groups_by_is_refused(image_folder: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare_dataset(image_folder.config(group_column=None), 1, tmp_path / "out")
    message = str(caught.value)
    assert "the column 'patient' of labels.csv looks like the patient: 'p00' has 2 images, " in message
    assert "Set data.group_column to the patient" in message
    assert "data.waive: {ungrouped: <the reason>}" in message
    config = image_folder.config(group_column=None, waive={"ungrouped": "every image is of another person"})
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    assert dataset.info["unit"] == "images"
    assert dataset.info["warnings"][0].startswith("waived: data.group_column is not set")
    assert verify_dataset(dataset.root) == []


def test_patients_are_asked_for_before_any_image_is_decoded(image_folder: ImageFolder, tmp_path: Path) -> None:
    (image_folder.root / "images/00_0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^data\.group_column is not set"):
        prepare_dataset(image_folder.config(group_column=None), 1, tmp_path / "out")


def test_ids_that_look_alike_or_outsized_are_warned_of(image_folder: ImageFolder, tmp_path: Path) -> None:
    names = {"p00": "3", "p03": "3.0", "p06": "003", "p01": "P04", "p04": "p04"}
    image_folder.table["patient"] = image_folder.table["patient"].replace(names)
    dataset = prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    assert dataset.info["unit"] == "patients"
    assert dataset.info["num_groups"] == 12
    assert dataset.info["warnings"] == [
        "patient ids that differ only in case, blanks or the spelling of a number: '003', '3', '3.0'; 'P04', 'p04'"
    ]
    assert json.loads((dataset.root / "dataset.json").read_text())["warnings"] == dataset.info["warnings"]
    assert dataset_warnings(dataset) == dataset.info["warnings"]


@pytest.mark.parametrize(
    ("waive", "says"), [({"leakage": WHY}, "'leakage' is nothing"), ({"ungrouped": " "}, "reason")]
)
def test_only_known_findings_are_waived_and_with_a_reason(
    image_folder: ImageFolder, waive: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        image_folder.config(waive=waive)


def test_an_official_split_with_copies_needs_a_waiver(
    write_medmnist: Callable[..., Path], medmnist_config: Callable[..., DataConfig], tmp_path: Path
) -> None:
    images = np.random.default_rng(5).integers(0, 256, (24, 10, 10), dtype=np.uint8)
    images[18] = images[0]  # both of the first grade
    path = write_medmnist(train_images=images[:12], val_images=images[12:18], test_images=images[18:])
    with pytest.raises(DataError, match=r"different splits: train_000000 \(train\), test_000000 \(test\)"):
        prepare_dataset(medmnist_config(path), 1, tmp_path / "out")
    config = medmnist_config(path, waive={"identical_across_splits": "the official split"})
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    assert dataset.info["counts"] == {"train": 12, "val": 6, "test": 6}
    assert dataset.info["unit"] == "images"


ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, *"uvwxyz"])), min_size=1, max_size=24)


def components(ids: Sequence[str], alike: Sequence[str | None]) -> list[frozenset[str]]:
    """Connected components by growing a set until nothing is added."""
    found = []
    for start in ids:
        reached = {start}
        while True:
            images = {v for i, v in zip(ids, alike, strict=True) if i in reached and v is not None}
            grown = reached | {i for i, v in zip(ids, alike, strict=True) if v in images}
            if grown == reached:
                break
            reached = grown
        found.append(frozenset(reached))
    return found


@given(ROWS)
def test_joined_groups_are_the_connected_ones_under_their_first_name(rows: list[tuple[str, str | None]]) -> None:
    ids, alike = [r[0] for r in rows], [r[1] for r in rows]
    assert join_alike(ids, alike) == [min(c) for c in components(ids, alike)]


@given(ROWS, st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["train", "val", "test"])))
def test_joining_never_brings_known_splits_together(rows: list[tuple[str, str | None]], known: dict[str, str]) -> None:
    ids = [r[0] for r in rows]
    homes: dict[str, set[str]] = {}
    for name, joined in zip(ids, join_alike(ids, [r[1] for r in rows], known), strict=True):
        homes.setdefault(joined, set()).update({known[name]} if name in known else set())
    assert all(len(splits) <= 1 for splits in homes.values())
