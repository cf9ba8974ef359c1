"""Preparing: what lands on disk, that it appears whole, and that its hash means its content."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raregrade.config import DataConfig
from raregrade.data import store as store_module
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import PHANTOM_LABELS
from raregrade.data.prepare import prepare_dataset
from raregrade.data.sources.decode import load_image
from raregrade.data.verify import verify_dataset
from raregrade.errors import DataError

if TYPE_CHECKING:
    from tests.data.conftest import ImageFolder

Config = Callable[..., DataConfig]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_row_i_of_the_manifest_is_image_i_of_the_shards(
    image_folder: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_SHARD_ITEMS", 10)
    dataset = prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    assert files(tmp_path / "out") == [
        "dataset.json", "images/00000.npy", "images/00001.npy", "images/00002.npy", "manifest.parquet"
    ]  # fmt: skip
    assert list(dataset.manifest["source_path"]) == list(image_folder.table["filename"])
    for i, name in enumerate(dataset.manifest["source_path"]):
        expected = load_image(image_folder.root / name, 16, "rgb")
        assert np.array_equal(dataset.images(np.array([i]))[0], expected)
    assert [dataset.label_space.classes[t] for t in dataset.targets(np.arange(24))] == list(image_folder.table["grade"])


def test_the_splits_are_by_group_and_counted(image_folder: ImageFolder, tmp_path: Path) -> None:
    dataset = prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    assert (dataset.manifest.groupby("group_id")["split"].nunique() == 1).all()
    assert dataset.info["counts"] == {s: len(dataset.rows(s)) for s in ("train", "val", "test")}
    for split in ("train", "val", "test"):
        assert set(dataset.targets(dataset.rows(split))) == {0, 1, 2}
    fold = dataset.manifest["fold"]
    assert ((fold == -1) == (dataset.manifest["split"] == "test")).all()


@pytest.mark.parametrize("flavour", PHANTOM_LABELS)
def test_masks_are_kept_for_the_test_split(
    phantoms: dict[str, Path], phantom_config: Config, tmp_path: Path, flavour: str
) -> None:
    dataset = prepare_dataset(phantom_config(phantoms[flavour], flavour, image_size=24), 1, tmp_path / "out")
    kept = dataset.masks(slice(None))
    assert kept is not None
    rows, masks = kept
    assert np.array_equal(rows, dataset.rows("test"))
    for row, mask in zip(rows, masks, strict=True):
        drawn = Image.open(phantoms[flavour] / "masks" / f"{dataset.manifest['image_id'][row]}.png")
        assert np.array_equal(mask, np.asarray(drawn) > 0)
    assert verify_dataset(dataset.root) == []


def test_unknown_labels_stay_unknown(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["x"], image_folder.table["y"] = ["1", "0"] * 12, ["", "1"] * 12
    config = image_folder.config(task="multilabel", classes=["x", "y"], label_column=None)
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    targets = dataset.targets(np.array([1, 0]))
    assert targets.dtype == np.float32
    assert np.array_equal(targets, np.array([[0, 1], [1, np.nan]]), equal_nan=True)


def test_the_hash_is_of_the_content_and_not_of_place_or_time(
    image_folder: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = image_folder.config()
    first = prepare_dataset(config, 1, tmp_path / "a")
    monkeypatch.setattr(store_module, "MAX_SHARD_ITEMS", 5)
    again = prepare_dataset(config, 1, tmp_path / "b", store=tmp_path / "store")
    assert again.content_hash == first.content_hash
    assert first.computed_hash() == first.content_hash


def test_the_hash_changes_with_a_pixel_a_label_and_the_seed(image_folder: ImageFolder, tmp_path: Path) -> None:
    config = image_folder.config()
    seen = {prepare_dataset(config, seed, tmp_path / f"seed{seed}").content_hash for seed in (1, 2)}
    pixels = np.array(Image.open(image_folder.root / "images/00_0.png"))
    pixels[10, 12] ^= 255
    Image.fromarray(pixels).save(image_folder.root / "images/00_0.png")
    seen.add(prepare_dataset(config, 1, tmp_path / "pixel").content_hash)
    image_folder.table.loc[0, "grade"] = "high"
    seen.add(prepare_dataset(image_folder.config(), 1, tmp_path / "label").content_hash)
    assert len(seen) == 4


def test_a_store_holds_the_shards_under_their_hash(
    phantoms: dict[str, Path], phantom_config: Config, tmp_path: Path
) -> None:
    config = phantom_config(phantoms["ordinal"], "ordinal")
    dataset = prepare_dataset(config, 1, tmp_path / "out", store=tmp_path / "store")
    shards = tmp_path / "store" / dataset.content_hash
    assert files(tmp_path / "out") == ["dataset.json", "manifest.parquet"]
    assert files(tmp_path / "store") == [
        f"{dataset.content_hash}/{n}" for n in ("images/00000.npy", "masks/00000.npy", "masks/rows.npy")
    ]
    assert dataset.info["images"] == str(shards / "images")
    before = (shards / "images" / "00000.npy").stat().st_ino
    again = prepare_dataset(config, 1, tmp_path / "again", store=tmp_path / "store")
    assert (shards / "images" / "00000.npy").stat().st_ino == before
    assert np.array_equal(again.images(slice(None)), dataset.images(slice(None)))
    assert [p.name for p in (tmp_path / "store").iterdir()] == [dataset.content_hash]


def test_groups_of_the_previous_dataset_keep_their_split(image_folder: ImageFolder, tmp_path: Path) -> None:
    table = image_folder.table
    image_folder.table = table[table["patient"] < "p09"]
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "before").manifest
    image_folder.table = table
    for seed in range(5):
        after = prepare_dataset(image_folder.config(), seed, tmp_path / "after", previous=tmp_path / "before").manifest
        old = dict(zip(before["group_id"], before["split"], strict=True))
        new = dict(zip(after["group_id"], after["split"], strict=True))
        assert {g: new[g] for g in old} == old


def test_a_dataset_can_follow_itself_in_the_same_folder(image_folder: ImageFolder, tmp_path: Path) -> None:
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "out").manifest
    after = prepare_dataset(image_folder.config(), 2, tmp_path / "out", previous=tmp_path / "out").manifest
    assert list(after["split"]) == list(before["split"])


def test_a_split_column_that_moves_a_known_group_is_refused(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["part"] = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    prepare_dataset(image_folder.config(split={"column": "part", "folds": 2}), 1, tmp_path / "before")
    image_folder.table["part"] = ["test"] * 6 + ["val"] * 6 + ["train"] * 12
    config = image_folder.config(split={"column": "part", "folds": 2})
    with pytest.raises(DataError, match="group 'p00' was in train and is now in test"):
        prepare_dataset(config, 1, tmp_path / "after", previous=tmp_path / "before")


def test_val_is_dealt_where_the_split_column_has_none(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["part"] = ["train"] * 18 + ["test"] * 6
    config = image_folder.config(split={"column": "part", "folds": 2, "val": 0.34})
    manifest = prepare_dataset(config, 1, tmp_path / "out").manifest
    assert (manifest["split"] == "test").tolist() == [False] * 18 + [True] * 6
    assert (manifest["split"] == "val").sum() == 6
    assert (manifest.groupby("group_id")["split"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train"] * 18 + ["val"] * 6, "no image is in split test"),
        (
            ["val", "val", "train", "train", "train", "train"] * 3 + ["test"] * 6,
            "class 'low' has no images in split train",
        ),
    ],
)
def test_a_split_column_that_leaves_nothing_to_train_or_test_on_is_refused(
    image_folder: ImageFolder, tmp_path: Path, parts: list[str], message: str
) -> None:
    image_folder.table["part"] = parts
    with pytest.raises(DataError, match=message):
        prepare_dataset(image_folder.config(split={"column": "part", "folds": 2}), 1, tmp_path / "out")


def test_a_class_that_the_own_split_leaves_out_of_val_is_a_warning(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["part"] = ["train"] * 12 + ["val"] * 2 + ["test"] * 10
    dataset = prepare_dataset(image_folder.config(split={"column": "part", "folds": 2}), 1, tmp_path / "out")
    assert "class 'middle' has no images in split val" in dataset.info["warnings"]


def test_unreadable_images_are_all_named_and_nothing_is_left(image_folder: ImageFolder, tmp_path: Path) -> None:
    for name in ("images/01_0.png", "images/05_1.png"):
        (image_folder.root / name).write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        prepare_dataset(image_folder.config(), 1, tmp_path / "new" / "out", store=tmp_path / "store")
    assert "2 problems" in str(caught.value)
    for line, name in ((4, "01_0.png"), (13, "05_1.png")):
        assert f"line {line}" in str(caught.value)
        assert f"{name}: not a readable image" in str(caught.value)
    assert files(tmp_path / "new") == files(tmp_path / "store") == []


def test_an_earlier_dataset_survives_a_failure(image_folder: ImageFolder, tmp_path: Path) -> None:
    before = prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    (image_folder.root / "images/01_0.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    assert PreparedDataset.open(tmp_path / "out").content_hash == before.content_hash
    assert verify_dataset(tmp_path / "out") == []


def test_a_folder_of_something_else_is_not_replaced(image_folder: ImageFolder) -> None:
    with pytest.raises(DataError, match=r"has no dataset\.json"):
        prepare_dataset(image_folder.config(), 1, image_folder.root)
    assert len(files(image_folder.root)) == 25


def test_a_process_killed_while_decoding_leaves_no_dataset(
    phantoms: dict[str, Path], phantom_config: Config, tmp_path: Path
) -> None:
    config = phantom_config(phantoms["ordinal"], "ordinal").model_dump_json()
    code = (
        "import sys, time; from pathlib import Path\n"
        "from raregrade.config import DataConfig; from raregrade.data import prepare\n"
        "def slow(load, real=prepare._decode):\n"
        "    print('decoding', flush=True); time.sleep(0.5); return real(load)\n"
        "prepare._decode = slow\n"
        "prepare.prepare_dataset(DataConfig.model_validate_json(sys.argv[1]), 1, Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, config, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("dataset.json"))


def test_a_child_without_its_parent_is_a_warning(image_folder: ImageFolder, tmp_path: Path) -> None:
    image_folder.table["up"], image_folder.table["down"] = ["1", "0"] * 12, ["1"] * 23 + ["0"]
    config = image_folder.config(
        task="multilabel", classes=["up", "down"], label_column=None, hierarchy=[["up", "down"]]
    )
    warnings = prepare_dataset(config, 1, tmp_path / "out").info["warnings"]
    assert warnings == ["11 images have down = 1 and its parent up = 0 (first: images/00_1.png)"]


def test_dataset_json_and_manifest_are_as_documented(image_folder: ImageFolder, tmp_path: Path) -> None:
    config = image_folder.config(licence="CC BY 4.0", color="grey")
    dataset = prepare_dataset(config, 1, tmp_path / "out")
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert {k: info[k] for k in ("schema", "image_size", "channels", "source", "licence", "num_images")} == {
        "schema": 1, "image_size": 16, "channels": 1, "source": "folder", "licence": "CC BY 4.0", "num_images": 24
    }  # fmt: skip
    assert (info["images"], info["masks"]) == ("images", None)
    assert info["raw"] == {"path": str(image_folder.root), "table": "labels.csv", "rows": 24}
    assert list(pd.read_parquet(tmp_path / "out" / "manifest.parquet").columns) == [
        "image_id", "group_id", "split", "fold", "label", "source_path", "sha256"
    ]  # fmt: skip
    assert dataset.masks(slice(None)) is None


def test_progress_goes_to_stderr_alone(
    image_folder: ImageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_dataset(image_folder.config(), 1, tmp_path / "out")
    assert capsys.readouterr().out == ""
