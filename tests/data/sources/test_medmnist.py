"""MedMNIST files: the official split is kept, and what is no such file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import DataConfig
from raregrade.data.sources import read_source
from raregrade.errors import ConfigError, DataError

Write = Callable[..., Path]
Config = Callable[..., DataConfig]


def test_the_official_split_and_the_order_of_labels_are_kept(write_medmnist: Write, medmnist_config: Config) -> None:
    records = read_source(medmnist_config(write_medmnist())).records
    assert [r.split for r in records] == ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    assert [r.label for r in records[:4]] == [0, 1, 2, 0]
    assert records[13].image_id == records[13].group_id == "val_000001"
    assert len({r.group_id for r in records}) == 24


def test_images_are_those_of_the_file(write_medmnist: Write, medmnist_config: Config) -> None:
    path = write_medmnist(val_images=np.full((6, 16, 16, 3), 77, np.uint8))
    records = read_source(medmnist_config(path, color="rgb")).records
    assert records[12].source_path == "val_images/0"
    assert np.array_equal(records[12].load(), np.full((16, 16, 3), 77, np.uint8))
    assert records[0].load().shape == (16, 16, 3)


def test_multilabel_arrays_are_read(write_medmnist: Write, medmnist_config: Config) -> None:
    labels = {f"{s}_labels": np.eye(3, dtype=np.uint8)[np.arange(n) % 3] for s, n in
              (("train", 12), ("val", 6), ("test", 6))}  # fmt: skip
    records = read_source(medmnist_config(write_medmnist(**labels), task="multilabel")).records
    assert [r.label for r in records[:2]] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]


def bad(n: int, value: float) -> np.ndarray:
    labels = (np.arange(n) % 3).astype(float)
    labels[3] = value
    return labels


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_labels": bad(12, 3)}, r"train_labels\[3\]: label 3 is not one of 0 to 2"),
        ({"val_labels": bad(6, np.nan)}, r"val_labels\[3\]: label nan is not one of 0 to 2"),
        ({"test_labels": bad(6, 0.5)}, r"test_labels\[3\]: label 0.5 is not one of 0 to 2"),
        ({"test_labels": np.zeros((6, 4))}, r"test_labels is float64 \(6, 4\).*needs numbers \[N, 1\]"),
        ({"train_images": np.zeros((12, 10, 10, 10), np.uint8)}, r"\(12, 10, 10, 10\).*Volumes are not supported"),
        ({"train_images": np.zeros((12, 10, 10))}, "train_images is float64"),
        ({"train_images": np.zeros((11, 10, 10), np.uint8)}, "11 train_images and 12 train_labels"),
        (
            {f"{s}_labels": np.zeros(n, int) for s, n in (("train", 12), ("val", 6), ("test", 6))},
            "class 'middle' has no images",
        ),
        ({"without": ["test_labels"]}, r"no array test_labels; it holds train_images"),
        ({"test_images": np.array([None] * 6), "test_labels": np.zeros(6, int)}, "not a MedMNIST"),
    ],
)
def test_a_wrong_array_is_refused_by_name(
    write_medmnist: Write, medmnist_config: Config, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(medmnist_config(write_medmnist(**arrays)))


@pytest.mark.parametrize("content", [b"", b"not a zip", "npy"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, medmnist_config: Config, content: bytes | str) -> None:
    path = tmp_path / "x.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"x\.npz: not a MedMNIST \.npz file"):
        read_source(medmnist_config(path))


def test_a_missing_file_is_named(tmp_path: Path, medmnist_config: Config) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: no such file"):
        read_source(medmnist_config(tmp_path / "gone.npz"))


@pytest.mark.parametrize("keys", [{"group_column": "p"}, {"label_column": "x"}, {"split": {"column": "s"}}])
def test_keys_that_would_be_ignored_are_refused(
    write_medmnist: Write, medmnist_config: Config, keys: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="has no meaning for source medmnist"):
        read_source(medmnist_config(write_medmnist(), **keys))
