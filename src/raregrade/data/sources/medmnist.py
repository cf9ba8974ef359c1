"""MedMNIST's .npz files: {train,val,test}_images and _labels, with the official split.

Format: Yang et al., MedMNIST v2, Scientific Data 10:41 (2023). The files name no patients, so each image is its
own group. ``data.path`` is the file; ``data.classes`` names the classes in the order of the label numbers.
"""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.config import DataConfig
from raregrade.data.sources.base import TABLE_KEYS, RawDataset, Record, class_problems, keys_given, raise_problems
from raregrade.data.sources.decode import array_image
from raregrade.data.splits import SPLITS
from raregrade.errors import ConfigError, DataError

_ADVICE = "Set data.task and data.classes to those of the file, in the order of its label numbers."


def read_medmnist(config: DataConfig) -> RawDataset:
    """Read the file ``config.path``.

    Images: uint8 [N, H, W] or [N, H, W, 3]. Labels: [N] or [N, 1] class numbers, or [N, K] of 0 and 1 for multilabel.

    Raises:
        ConfigError: a key of ``data:`` that has no meaning here.
        DataError: no such file, no MedMNIST file, an array of another shape or type, a label outside the classes,
            a class without images.
    """
    unused = keys_given(config, TABLE_KEYS)
    unused += ["split.column"] if config.split.column is not None else []
    if unused:
        raise ConfigError(
            f"data.{', data.'.join(unused)}: has no meaning for source medmnist, whose file holds labels and an "
            "official split; remove it"
        )
    path = Path(config.path)
    arrays = _read_arrays(path)
    labels = {split: _labels(config, path, split, arrays) for split in SPLITS}
    problems = [p for s, rows in labels.items() for p in _label_problems(config, f"{path}, {s}_labels", rows)]
    raise_problems(problems, _ADVICE)
    records = [
        _record(config, f"{split}_images", i, image, label)
        for split in SPLITS
        for i, (image, label) in enumerate(zip(arrays[f"{split}_images"], labels[split], strict=True))
    ]
    raise_problems(class_problems(records, config.label_space(), str(path)), _ADVICE)
    return RawDataset(records, {"file": path.name})


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    names = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [n for n in names if n not in archive]
            if missing:
                raise DataError(f"{path}: no array {', '.join(missing)}; it holds {', '.join(archive.files)}")
            return {n: archive[n] for n in names}
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file. Set data.path to a MedMNIST .npz file.") from err
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as err:
        if isinstance(err, DataError):
            raise
        raise DataError(f"{path}: not a MedMNIST .npz file: {err}") from err


def _labels(config: DataConfig, path: Path, split: str, arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Labels of ``split`` as float [N, 1] or, for multilabel, [N, K]; the shapes of images and labels are checked."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise DataError(
            f"{path}: {split}_images is {images.dtype} {images.shape}; expected uint8 [N, H, W] or [N, H, W, 3]. "
            "Volumes are not supported."
        )
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(
            f"{path}: {len(images)} {split}_images and {len(labels)} {split}_labels; expected one label each"
        )
    columns = len(config.classes) if config.task == "multilabel" else 1
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or labels.shape[1] != columns or labels.dtype.kind not in "iufb":
        raise DataError(
            f"{path}: {split}_labels is {labels.dtype} {labels.shape}; task {config.task} with "
            f"{len(config.classes)} classes needs numbers [N, {columns}]. {_ADVICE}"
        )
    return labels.astype(np.float64)


def _label_problems(config: DataConfig, where: str, labels: npt.NDArray[np.float64]) -> list[str]:
    highest = 1 if config.task == "multilabel" else len(config.classes) - 1
    bad = np.argwhere(~np.isin(labels, np.arange(highest + 1)))
    return [f"{where}[{i}]: label {labels[i, k]:g} is not one of 0 to {highest}" for i, k in bad.tolist()]


def _record(
    config: DataConfig, array: str, index: int, image: npt.NDArray[Any], label: npt.NDArray[np.float64]
) -> Record:
    split = array.removesuffix("_images")
    image_id = f"{split}_{index:06d}"
    return Record(
        image_id=image_id,
        group_id=image_id,
        split=split,
        label=tuple(float(v) for v in label) if config.task == "multilabel" else int(label[0]),
        source_path=f"{array}/{index}",
        where=f"{config.path}, {array}[{index}]",
        load=partial(array_image, image, config.image_size, config.color),
    )
