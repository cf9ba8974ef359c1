"""The table of predictions: one row per image, with its group, split, target and class probabilities.

Reading, checking and writing that table as parquet or CSV. Nothing here computes a metric, and nothing
here knows which model made the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.atomic import atomic_file
from raregrade.errors import DataError
from raregrade.evaluation.prediction_columns import (
    Source,
    class_indices,
    first_true,
    labels_of,
    names_of,
    numbers_of,
    probabilities_of,
    texts_of,
)
from raregrade.labels import LabelSpace
from raregrade.names import is_missing, normalised, outsized_id, patient_like, suspicious_ids, unit_of
from raregrade.tables import check_alike, check_unique, read_text_table

SPLITS = ("train", "val", "test")
# Probabilities rounded to three or four decimals by another program still pass.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """Predictions whose table has passed every check of this module.

    Attributes:
        frame: ``image_id``, ``group_id``, ``split`` (text), the label space's ``target_columns`` (int64 class
            index, or 0/1/NaN a label) and ``prob_columns`` in [0, 1]; ``logit_<i>`` where kept.
        label_space: what the targets and probabilities mean.
        assumptions: what the file does not say and was assumed to read it, one sentence each, for reports.
    """

    frame: pd.DataFrame
    label_space: LabelSpace
    assumptions: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["images", "patients"]:
        """What the groups are: "images" where each image is its own group, else "patients" (or lesions, …)."""
        return unit_of(self.frame["image_id"].tolist(), self.frame["group_id"].tolist())

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order train, val, test."""
        present = set(self.frame["split"])
        return tuple(s for s in SPLITS if s in present)

    def targets(self, split: str) -> npt.NDArray[Any]:
        """int64 [n] class indices, or float64 [n, K] of 0, 1 and NaN (unknown) for ``multilabel``."""
        columns = self._rows(split)[self.label_space.target_columns]
        if self.label_space.task == "multilabel":
            return columns.to_numpy(dtype=np.float64)
        return columns["target"].to_numpy(dtype=np.int64)

    def probs(self, split: str) -> npt.NDArray[np.float64]:
        """float64 [n, K]."""
        return self._rows(split)[self.label_space.prob_columns].to_numpy(dtype=np.float64)

    def groups(self, split: str) -> npt.NDArray[np.object_]:
        """[n] group names (patients, lesions)."""
        return self._rows(split)["group_id"].to_numpy(dtype=object)

    def image_ids(self, split: str) -> npt.NDArray[np.object_]:
        """[n] image names."""
        return self._rows(split)["image_id"].to_numpy(dtype=object)

    def _rows(self, split: str) -> pd.DataFrame:
        return self.frame[self.frame["split"] == split]


def make_predictions(
    label_space: LabelSpace,
    *,
    image_id: Sequence[str] | npt.NDArray[Any],
    group_id: Sequence[str] | npt.NDArray[Any],
    split: Sequence[str] | npt.NDArray[Any],
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    logits: npt.NDArray[Any] | None = None,
) -> Predictions:
    """Build and check a table of predictions from arrays of one row per image.

    Args:
        label_space: what the targets and probabilities mean.
        image_id, group_id, split: [N] text; ``split`` is train, val or test.
        targets: int [N] class indices, or float [N, K] of 0, 1 and NaN for ``multilabel``.
        probs: [N, K] in [0, 1]; rows sum to 1 unless ``multilabel``.
        logits: [N, num_outputs], kept as ``logit_0``, ``logit_1``, …

    Raises:
        DataError: any of the checks of ``read_predictions``; also where the arrays differ in length.
    """
    columns: dict[str, Any] = {"image_id": image_id, "group_id": group_id, "split": split}
    target_columns = np.asarray(targets).reshape(len(targets), -1)
    if label_space.task != "multilabel":
        target_columns = _names_of(target_columns, label_space)
    for name, values, names in (
        ("targets", target_columns, label_space.target_columns),
        ("probs", np.asarray(probs), label_space.prob_columns),
    ):
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(f"{name} have shape {values.shape}; expected [N, {len(names)}] for {', '.join(names)}")
        columns |= {column: values[:, i] for i, column in enumerate(names)}
    if logits is not None:
        columns |= {f"logit_{i}": logits[:, i] for i in range(logits.shape[1])}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"the columns of the predictions differ in length: {lengths}")
    return _checked(pd.DataFrame(columns), label_space, Source("predictions", first_row=0))


def _names_of(indices: npt.NDArray[Any], label_space: LabelSpace) -> npt.NDArray[Any]:
    """Class names for class indices, whatever the classes are called. Raises DataError for an index outside them."""
    wrong = ~np.isin(indices, np.arange(label_space.num_classes))
    if wrong.any():
        raise DataError(f"target {indices[wrong][0]} is not a class index; allowed: 0 to {label_space.num_classes - 1}")
    names: npt.NDArray[Any] = np.array(label_space.classes, dtype=object)[indices.astype(np.int64)]
    return names


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write the table to ``path`` (.parquet or .csv) atomically. Targets of single-label tasks are written as names.

    A position would be read as a name where the classes are called "1", "2", "3".
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"{path}: predictions are written as .parquet or .csv")
    frame = predictions.frame
    if predictions.label_space.task != "multilabel":
        frame = frame.assign(target=_names_of(frame["target"].to_numpy(), predictions.label_space))
    with atomic_file(path) as temporary:
        if suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)


def read_predictions(path: Path, label_space: LabelSpace) -> Predictions:
    """Read and check predictions, made here or by any other program.

    Needed columns: ``image_id``, the label space's ``prob_columns`` and ``target_columns``. Without ``split`` every
    row belongs to test; without ``group_id`` every image is its own group. Both change what the numbers mean, so they
    stand in ``assumptions``; and a table without ``group_id`` in which several images share a value of a column such
    as ``patient`` is refused, since every interval would be too narrow.

    A target is a class name, as text or as a number in any spelling ("3", 3, 3.0). Where no class is called by a
    number, targets may also be positions from 0, which is an assumption too; where one is, a number is never a
    position. A ``multilabel`` target is 0, 1 or missing. Names and ids are compared in Unicode's composed form and
    without blanks at their ends.

    Raises:
        DataError: no such file, not .parquet or .csv, no rows, a missing column, one that is there twice or in another
            case, a probability that is not a number in [0, 1], rows that do not sum to 1 ± 1e-3 (single-label), a
            target outside the classes or of two meanings, a missing id, an image twice, an unknown split, a group in
            two splits, patients without ``group_id``. Names the file, and the row: for CSV the line of the file, for
            parquet the row counted from 1.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give predictions as .parquet or .csv")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(
            f"{path}: predictions are read from .parquet or .csv, not {suffix or 'a file without a suffix'}"
        )
    if suffix == ".csv":
        table = read_text_table(path)
        columns = {name: list(cells) for name, cells in zip(table.columns, zip(*table.rows, strict=True), strict=False)}
        frame = pd.DataFrame(columns, index=list(table.lines), columns=list(table.columns), dtype=object)
        return _checked(frame, label_space, Source(str(path), first_row=0, row="line", notes=table.notes))
    return _checked(_read_parquet(path), label_space, Source(str(path), first_row=1))


def _read_parquet(path: Path) -> pd.DataFrame:
    """The table, its index by position; a named index that was stored is a column."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only where such a file is read

    try:
        check_unique([normalised(name) for name in pq.ParquetFile(path).schema_arrow.names], str(path))
        frame = pd.read_parquet(path)
    except DataError:
        raise
    except (ValueError, OSError) as err:
        raise DataError(f"{path}: cannot be read as parquet: {err}; write it again") from err
    named = [name for name in frame.index.names if name is not None and name not in frame]
    frame = frame.reset_index(level=named) if named else frame
    return frame.set_axis([normalised(str(name)) for name in frame.columns], axis=1).reset_index(drop=True)


def _checked(frame: pd.DataFrame, label_space: LabelSpace, source: Source) -> Predictions:
    """The table with its columns typed, in a fixed order, and every check passed."""
    if len(frame) == 0:
        raise DataError(f"{source.name}: holds no rows; give one row per image")
    _check_columns(frame, label_space, source)
    assumptions = list(source.notes)
    # The index is the position in the file until the end: errors name rows by it.
    result = pd.DataFrame(index=frame.index)
    result["image_id"] = names_of(frame, "image_id", source)
    if "group_id" in frame:
        result["group_id"] = names_of(frame, "group_id", source)
        assumptions += suspicious_ids(result["group_id"], "group") + outsized_id(result["group_id"].tolist(), "group")
    else:
        _check_no_patients(frame, source)
        result["group_id"] = result["image_id"]
        assumptions.append(
            "there is no column group_id: each image is taken as its own group, so intervals are too narrow where one "
            "patient has several images"
        )
    if "split" in frame:
        result["split"] = names_of(frame, "split", source)
    else:
        result["split"] = "test"
        assumptions.append(f"there is no column split: all {len(frame)} rows are taken as the test split")
    if label_space.task == "multilabel":
        for column in label_space.target_columns:
            result[column] = labels_of(frame[column], column, source)
    else:
        result["target"], assumed = class_indices(frame["target"], label_space, source)
        assumptions += assumed
    for column in label_space.prob_columns:
        result[column] = probabilities_of(frame[column], column, source)
    if label_space.task != "multilabel":
        _check_sums(result[label_space.prob_columns], source)
    _check_identity(result, source)
    extra = [c for c in frame.columns if c.startswith("logit_")]
    values = {c: numbers_of(frame[c], c, source) for c in extra}
    result = pd.concat([result, pd.DataFrame(values, index=result.index)], axis=1)
    return Predictions(result.reset_index(drop=True), label_space, tuple(assumptions))


def _check_columns(frame: pd.DataFrame, label_space: LabelSpace, source: Source) -> None:
    columns = [str(c) for c in frame.columns]
    needed = ["image_id", *label_space.target_columns, *label_space.prob_columns]
    check_unique(columns, source.name)
    missing = [c for c in needed if c not in columns]
    if missing:
        raise DataError(
            f"{source.name}: lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"needed for classes {', '.join(label_space.classes)}: {', '.join(needed)}; "
            f"found: {', '.join(columns)}"
        )
    check_alike(columns, [*needed, "group_id", "split"], source.name)


def _check_no_patients(frame: pd.DataFrame, source: Source) -> None:
    """Refuse a table that names patients, in a column that is not read, with several images each."""
    for column in patient_like([str(c) for c in frame.columns]):
        ids = [text for text in texts_of(frame[column]) if not is_missing(text)]
        if len(set(ids)) < len(ids):
            raise DataError(
                f"{source.name}: has no column group_id, but the column {column} looks like the patient, with "
                f"{len(set(ids))} values for {len(ids)} images. Rename it to group_id, or add a column group_id that "
                "says which images belong together (image_id where each stands alone)"
            )


def _check_sums(probs: pd.DataFrame, source: Source) -> None:
    sums = probs.astype(np.float64).sum(axis=1)
    bad = (sums - 1).abs() > SUM_TOLERANCE
    if bad.any():
        row = first_true(bad)
        raise DataError(
            f"{source.at(row)}: the probabilities sum to {sums[row]:.6g}; for one label an image they must sum to 1 "
            f"± {SUM_TOLERANCE:g}"
        )


def _check_identity(table: pd.DataFrame, source: Source) -> None:
    """Each image once, each split known, each group in one split."""
    double = table["image_id"].duplicated()
    if double.any():
        row = first_true(double)
        name = table["image_id"][row]
        first = first_true(table["image_id"] == name)
        raise DataError(f"{source.at(row)}: image_id {name!r} is also at {source.at(first)}; keep one row per image")
    unknown = ~table["split"].isin(SPLITS)
    if unknown.any():
        row = first_true(unknown)
        raise DataError(f"{source.at(row)}: unknown split {table['split'][row]!r}; allowed: {', '.join(SPLITS)}")
    home = table.groupby("group_id")["split"].transform("first")
    moved = table["split"] != home
    if moved.any():
        row = first_true(moved)
        group = table["group_id"][row]
        first = first_true(table["group_id"] == group)
        raise DataError(
            f"{source.at(row)}: group {group!r} is in split {table['split'][row]}, but at {source.at(first)} in split "
            f"{home[row]}; all images of a group belong to one split, or test images resemble training images"
        )
