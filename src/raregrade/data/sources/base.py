"""What every source yields, and the collecting of problems.

A source checks its own files and labels; dealing splits, decoding and writing are ``prepare``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from raregrade.config import DataConfig
from raregrade.data.checks import Finding
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

MAX_LISTED = 10
# Keys of `data:` that say how to read a table; a source without one, or with a fixed one, refuses them.
TABLE_KEYS = (
    "table", "image_column", "image_folder", "image_suffix", "label_column", "label_separator", "negative_names",
    "uncertain", "blank", "group_column",
)  # fmt: skip

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Record:
    """One image of a source.

    Attributes:
        image_id: unique in the dataset.
        group_id: the patient or lesion; its images stay in one split.
        split: train, val or test where the source has a split of its own, else None.
        label: class index, or one value per class for ``multilabel``: 0.0, 1.0 or NaN (unknown).
        source_path: where the image lies, relative to the raw data.
        where: file and row that describe it, for messages ("labels.csv, line 7").
        load: decodes the image to uint8 [size, size, channels]; raises DataError.
        load_mask: decodes its lesion mask to bool [size, size], where there is one.
    """

    image_id: str
    group_id: str
    split: str | None
    label: int | tuple[float, ...]
    source_path: str
    where: str
    load: Callable[[], Pixels]
    load_mask: Callable[[], Mask] | None = None


@dataclass(frozen=True)
class RawDataset:
    """The records of a source, checked; ``provenance`` goes into dataset.json, and so does what was found odd."""

    records: list[Record]
    provenance: dict[str, object] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def keys_given(config: DataConfig, keys: Sequence[str]) -> list[str]:
    """Those of ``keys`` that are not at their defaults."""
    fields = DataConfig.model_fields
    return [key for key in keys if getattr(config, key) != fields[key].get_default(call_default_factory=True)]


def raise_problems(problems: Sequence[str], advice: str) -> None:
    """Raise one DataError that lists up to ten ``problems`` and says how many more there are; none: do nothing."""
    if not problems:
        return
    lines = list(problems[:MAX_LISTED])
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    message = lines[0] if len(lines) == 1 else f"{len(problems)} problems:\n  " + "\n  ".join(lines)
    raise DataError(f"{message}\n{advice}")


def group_problems(records: Sequence[Record]) -> list[str]:
    """Groups whose images the source's own split puts in more than one split."""
    first: dict[str, Record] = {}
    problems = []
    for record in records:
        seen = first.setdefault(record.group_id, record)
        if seen.split != record.split:
            problems.append(
                f"{record.where}: group {record.group_id!r} is in split {record.split!r}, "
                f"in {seen.where} it is in {seen.split!r}"
            )
    return problems


def class_problems(records: Sequence[Record], label_space: LabelSpace, where: str) -> list[str]:
    """Classes of ``label_space`` without a single image."""
    labels = label_matrix(records, label_space)
    counts = (labels > 0).sum(axis=0)
    return [
        f"{where}: class {name!r} has no images" for name, n in zip(label_space.classes, counts, strict=True) if n == 0
    ]


def label_matrix(records: Sequence[Record], label_space: LabelSpace) -> npt.NDArray[np.float32]:
    """Labels as float32 [N, K] of 0, 1 and NaN, one-hot where an image has one label."""
    if label_space.task == "multilabel":
        return np.array([r.label for r in records], dtype=np.float32).reshape(len(records), label_space.num_classes)
    labels = np.array([r.label for r in records], dtype=np.int64)
    return np.eye(label_space.num_classes, dtype=np.float32)[labels]
