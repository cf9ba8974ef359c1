"""The read side of a prepared dataset: dataset.json, manifest.parquet and the shards they describe.

Also the names of files and columns, and the content hash, which the write side (``prepare``) and ``verify`` share.
Nothing here decodes images or decides on splits. Needs neither torch nor an image library.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.data.splits import SPLITS
from raregrade.data.store import ShardReader
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

SCHEMA = 1
INFO_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
MASK_ROWS_FILE = "rows.npy"
_MAKE_IT = "Run `raregrade prepare` to make it."


class PreparedDataset:
    """A dataset as ``prepare`` wrote it; images are read from the memory map when asked for.

    Attributes:
        root: the folder.
        label_space: task, classes, hierarchy.
        image_size: height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        content_hash: sha256 (hex) over manifest, label space, pixels and masks.
        info: dataset.json as it stands.
        manifest: row i describes image i; columns image_id, group_id, split, fold, label or label_<class>,
            source_path, sha256.
        fold: number of the fold that validates, or None with the fixed split.
    """

    fold: int | None = None

    def __init__(self, root: Path, info: dict[str, Any], manifest: pd.DataFrame) -> None:
        self.root = root
        self.info = info
        self.manifest = manifest
        try:
            self.label_space = LabelSpace.from_json(info["label_space"])
            self.image_size = int(info["image_size"])
            self.channels = int(info["channels"])
            self.content_hash = str(info["content_hash"])
            images, masks = info["images"], info["masks"]
        except (KeyError, TypeError, ValueError) as err:
            raise DataError(f"{root / INFO_FILE}: missing or wrong key: {err!r}. {_MAKE_IT}") from err
        self._check_columns()
        self._images = ShardReader(_resolve(root, images))
        self._check_images()
        self._mask_rows, self._masks = self._open_masks(masks)

    @classmethod
    def open(cls, root: Path, *, fold: int | None = None) -> PreparedDataset:
        """Open the prepared dataset in folder ``root``.

        Args:
            root: the folder.
            fold: number of the fold of cross-validation that validates (see ``use_fold``); None keeps the fixed split.

        Raises:
            DataError: the folder, a file in it or a column is missing, cannot be read, or contradicts another file.
        """
        root = Path(root)
        info = read_info(root)
        dataset = cls(root, info, read_manifest(root))
        if fold is not None:
            dataset.use_fold(fold)
        return dataset

    def __len__(self) -> int:
        return len(self.manifest)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of ``split`` (train, val or test), ascending. Raises DataError for another name."""
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
        return np.flatnonzero(self.manifest["split"].to_numpy() == split).astype(np.int64)

    def use_fold(self, fold: int) -> None:
        """Validate on fold ``fold`` and train on the other folds; the test split stays what it is.

        Raises:
            DataError: the dataset has no such fold.
        """
        folds = self.manifest["fold"].to_numpy()
        present = sorted({int(number) for number in folds[folds >= 0]})
        if fold not in present:
            raise DataError(f"fold {fold} doesn't exist in {self.root}; its folds are {', '.join(map(str, present))}")
        split = np.where(folds == fold, "val", np.where(folds >= 0, "train", self.manifest["split"].to_numpy()))
        self.manifest = self.manifest.assign(split=split)
        self.fold = fold

    def images(self, rows: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.uint8]:
        """Images ``rows`` in that order: uint8 [n, H, W, C]."""
        return self._images.take(rows)

    def targets(self, rows: npt.NDArray[np.int64] | slice) -> npt.NDArray[Any]:
        """Labels of ``rows``: int64 [n] class indices, or float32 [n, K] of 0, 1 and NaN (unknown) for multilabel."""
        table = self.manifest[self.label_space.label_columns].iloc[rows]
        if self.label_space.task == "multilabel":
            return table.to_numpy(dtype=np.float32)
        return table["label"].to_numpy(dtype=np.int64)

    def masks(self, rows: npt.NDArray[np.int64] | slice) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
        """Lesion masks: those of ``rows`` that have one, and bool [m, H, W]; None if the dataset has no masks."""
        if self._masks is None:
            return None
        if isinstance(rows, slice):
            rows = np.arange(len(self), dtype=np.int64)[rows]
        rows = np.asarray(rows, dtype=np.int64)
        having = rows[np.isin(rows, self._mask_rows)]
        return having, self._masks.take(np.searchsorted(self._mask_rows, having))

    def computed_hash(self) -> str:
        """The content hash anew, from the manifest and masks as they are now (pixels: by the manifest's sha256)."""
        masks = None if self._masks is None else (self._mask_rows, self._masks)
        return content_hash(self.manifest, self.label_space, self.image_size, self.channels, masks)

    def _check_columns(self) -> None:
        expected = manifest_columns(self.label_space)
        missing = [c for c in expected if c not in self.manifest.columns]
        if missing:
            raise DataError(
                f"{self.root / MANIFEST_FILE}: column {', '.join(missing)} is missing; "
                f"it has {', '.join(map(str, self.manifest.columns))}. {_MAKE_IT}"
            )

    def _check_images(self) -> None:
        shape = (self.image_size, self.image_size, self.channels)
        if self._images.item_shape != shape or self._images.dtype != np.uint8:
            raise DataError(
                f"{self.root}: the shards hold {self._images.item_shape} {self._images.dtype}, "
                f"{INFO_FILE} says {shape} uint8. {_MAKE_IT}"
            )
        if len(self._images) != len(self.manifest):
            raise DataError(
                f"{self.root}: {MANIFEST_FILE} has {len(self.manifest)} rows, the shards hold "
                f"{len(self._images)} images. {_MAKE_IT}"
            )

    def _open_masks(self, masks: str | None) -> tuple[npt.NDArray[np.int64], ShardReader | None]:
        if masks is None:
            return np.zeros(0, dtype=np.int64), None
        folder = _resolve(self.root, masks)
        try:
            rows = np.load(folder / MASK_ROWS_FILE, allow_pickle=False).astype(np.int64)
        except (OSError, ValueError, EOFError) as err:
            raise DataError(f"{folder / MASK_ROWS_FILE}: cannot be read: {err}. {_MAKE_IT}") from err
        reader = ShardReader(folder)
        if len(reader) != len(rows) or reader.item_shape != (self.image_size, self.image_size):
            raise DataError(
                f"{folder}: {len(reader)} masks of {reader.item_shape} for {len(rows)} rows of images of "
                f"{self.image_size} px. {_MAKE_IT}"
            )
        return rows, reader


def manifest_columns(label_space: LabelSpace) -> list[str]:
    return ["image_id", "group_id", "split", "fold", *label_space.label_columns, "source_path", "sha256"]


def read_info(root: Path) -> dict[str, Any]:
    """dataset.json of the prepared dataset in ``root``. Raises DataError: no such file, not JSON, another schema."""
    path = root / INFO_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{root} is not a prepared dataset: it has no {INFO_FILE}. {_MAKE_IT}") from err
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: cannot be read: {err}. {_MAKE_IT}") from err
    schema = info.get("schema") if isinstance(info, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path}: schema {schema!r}, this version reads schema {SCHEMA}. {_MAKE_IT}")
    assert isinstance(info, dict)
    return info


def read_manifest(root: Path) -> pd.DataFrame:
    """manifest.parquet of the prepared dataset in ``root``. Raises DataError: no such file, or not parquet."""
    path = root / MANIFEST_FILE
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as err:  # pyarrow's errors are among these
        raise DataError(f"{path}: cannot be read: {err}. {_MAKE_IT}") from err


def content_hash(
    manifest: pd.DataFrame,
    label_space: LabelSpace,
    image_size: int,
    channels: int,
    masks: tuple[npt.NDArray[np.int64], ShardReader] | None,
) -> str:
    """sha256 (hex) over label space, image shape, every row of the manifest (with its pixels' sha256) and the masks.

    Independent of where the shards lie, of shard size, of time, and of the parquet writer's version.
    """
    digest = hashlib.sha256()
    head = {"schema": SCHEMA, "label_space": label_space.to_json(), "image": [image_size, image_size, channels]}
    digest.update(json.dumps(head, sort_keys=True).encode())
    columns = manifest_columns(label_space)
    for row in manifest[columns].itertuples(index=False, name=None):
        digest.update(json.dumps([_plain(v) for v in row]).encode() + b"\n")
    if masks is not None:
        rows, reader = masks
        for start in range(0, len(rows), 256):
            chunk = slice(start, start + 256)
            digest.update(rows[chunk].astype("<i8").tobytes() + reader.take(chunk).astype(np.uint8).tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null, and 1.0 in a float32 column equals 1.0 in a float64 column."""
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def _resolve(root: Path, where: Any) -> Path:
    """The folder that dataset.json names: relative to the dataset, or absolute."""
    text = str(where)
    if "://" in text:
        raise DataError(f"{root / INFO_FILE}: the shards lie at {text}; fetch them and name a local folder instead.")
    return root / text
