"""The table of predictions: one row an image, with its group, split, target and class probabilities.

Reading, checking and writing that table as parquet or CSV. Nothing here computes a metric, and nothing
here knows which model made the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.atomic import atomic_file
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

SPLITS = ("train", "val", "test")
# Probabilities rounded to three or four decimals by another program still pass.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """Predictions whose table has passed every check of this module.

    Attributes:
        frame: ``image_id``, ``group_id``, ``split`` (text), the label space's ``target_columns`` (int64 class
            index, or 0/1/NaN a label) and ``prob_columns`` in [0, 1]; ``logit_<i>`` and ``embedding_<i>`` where kept.
        label_space: what the targets and probabilities mean.
    """

    frame: pd.DataFrame
    label_space: LabelSpace

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
    embeddings: npt.NDArray[Any] | None = None,
) -> Predictions:
    """Build and check a table of predictions from arrays of one row an image.

    Args:
        label_space: what the targets and probabilities mean.
        image_id, group_id, split: [N] text; ``split`` is train, val or test.
        targets: int [N] class indices, or float [N, K] of 0, 1 and NaN for ``multilabel``.
        probs: [N, K] in [0, 1]; rows sum to 1 unless ``multilabel``.
        logits: [N, num_outputs], kept as ``logit_0``, ``logit_1``, …
        embeddings: [N, D], kept as ``embedding_0``, …

    Raises:
        DataError: any of the checks of ``read_predictions``; also where the arrays differ in length.
    """
    columns: dict[str, Any] = {"image_id": image_id, "group_id": group_id, "split": split}
    target_columns = np.asarray(targets).reshape(len(targets), -1)
    for name, values, names in (
        ("targets", target_columns, label_space.target_columns),
        ("probs", np.asarray(probs), label_space.prob_columns),
    ):
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(f"{name} have shape {values.shape}; expected [N, {len(names)}] for {', '.join(names)}")
        columns |= {column: values[:, i] for i, column in enumerate(names)}
    for prefix, extra in (("logit", logits), ("embedding", embeddings)):
        if extra is not None:
            columns |= {f"{prefix}_{i}": extra[:, i] for i in range(extra.shape[1])}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"the columns of the predictions differ in length: {lengths}")
    return _checked(pd.DataFrame(columns), label_space, _Source("predictions", first_row=0, from_text=False))


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write the table to ``path`` (.parquet or .csv) atomically."""
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"{path}: predictions are written as .parquet or .csv")
    with atomic_file(path) as temporary:
        if suffix == ".csv":
            predictions.frame.to_csv(temporary, index=False)
        else:
            predictions.frame.to_parquet(temporary, index=False)


def read_predictions(path: Path, label_space: LabelSpace) -> Predictions:
    """Read and check predictions, made here or by any other program.

    Needed columns: ``image_id``, the label space's ``prob_columns`` and ``target_columns``. Without ``split`` every
    row belongs to test; without ``group_id`` every image is its own group. A target may be a class name or a class
    index: where every value of the column is a class name they are names (so classes called "1", "2", "3" are read
    by name), else indices from 0. A ``multilabel`` target is 0, 1 or empty.

    Raises:
        DataError: no such file, not .parquet or .csv, no rows, a missing column, a probability that is not a number
            in [0, 1], rows that do not sum to 1 ± 1e-3 (single-label), a target outside the classes, an image twice,
            an unknown split, a group in two splits. Names the file, and the row: for CSV the line of the file, for
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
    try:
        frame = _read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as err:
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {err}; write it again") from err
    return _checked(frame, label_space, _Source.of(path))


def _read_csv(path: Path) -> pd.DataFrame:
    """Every value as text: an image called 007 keeps its name. Blank lines keep their number and are dropped."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig")
    frame.columns = frame.columns.str.strip()
    return frame[(frame != "").any(axis=1)] if len(frame.columns) else frame


@dataclass(frozen=True)
class _Source:
    """Where a table came from, to name it and its rows in errors."""

    name: str
    first_row: int
    from_text: bool

    @classmethod
    def of(cls, path: Path) -> _Source:
        # A CSV's first line is its header, so its first row is line 2.
        return cls(str(path), 2, True) if path.suffix.lower() == ".csv" else cls(str(path), 1, False)

    def at(self, index: Any) -> str:
        return f"{self.name}, {'line' if self.from_text else 'row'} {int(index) + self.first_row}"


def _checked(frame: pd.DataFrame, label_space: LabelSpace, source: _Source) -> Predictions:
    """The table with its columns typed, in a fixed order, and every check passed."""
    if len(frame) == 0:
        raise DataError(f"{source.name}: holds no rows; give one row an image")
    _check_columns(frame, label_space, source)
    # The index is the position in the file until the end: errors name rows by it.
    result = pd.DataFrame(index=frame.index if source.from_text else range(len(frame)))
    frame = frame.set_axis(result.index, axis=0)
    result["image_id"] = _names(frame, "image_id", source)
    result["group_id"] = _names(frame, "group_id", source) if "group_id" in frame else result["image_id"]
    result["split"] = _names(frame, "split", source) if "split" in frame else "test"
    for column in label_space.target_columns:
        if label_space.task == "multilabel":
            result[column] = _label(frame[column], column, source)
        else:
            result[column] = _class_index(frame[column], label_space, source)
    for column in label_space.prob_columns:
        result[column] = _probability(frame[column], column, source)
    if label_space.task != "multilabel":
        _check_sums(result[label_space.prob_columns], source)
    _check_identity(result, source)
    extra = [c for c in frame.columns if c.startswith(("logit_", "embedding_"))]
    values = {c: pd.to_numeric(frame[c], errors="coerce") for c in extra}
    result = pd.concat([result, pd.DataFrame(values, index=result.index)], axis=1)
    return Predictions(result.reset_index(drop=True), label_space)


def _check_columns(frame: pd.DataFrame, label_space: LabelSpace, source: _Source) -> None:
    needed = ["image_id", *label_space.target_columns, *label_space.prob_columns]
    missing = [c for c in needed if c not in frame.columns]
    if missing:
        raise DataError(
            f"{source.name}: lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"needed for classes {', '.join(label_space.classes)}: {', '.join(needed)}; "
            f"found: {', '.join(map(str, frame.columns))}"
        )
    doubles = sorted({str(c) for c in frame.columns[frame.columns.duplicated()]})
    if doubles:
        raise DataError(f"{source.name}: has the column {', '.join(doubles)} more than once; keep one")


def _names(frame: pd.DataFrame, column: str, source: _Source) -> pd.Series[Any]:
    values = frame[column]
    empty = values.isna() | (values.astype(str).str.strip() == "")
    if empty.any():
        raise DataError(f"{source.at(_first(empty))}: {column} is empty; every row needs one")
    return values.astype(str).astype(object)


def _class_index(values: pd.Series[Any], label_space: LabelSpace, source: _Source) -> pd.Series[Any]:
    """Class names or indices as int64."""
    index = {name: i for i, name in enumerate(label_space.classes)}
    named = values.map(index) if not pd.api.types.is_numeric_dtype(values) else pd.Series(np.nan, values.index)
    if named.notna().all():
        return named.astype(np.int64)
    numbers = pd.to_numeric(values, errors="coerce")
    valid = numbers.isin(range(label_space.num_classes))
    # A few wrong values among names are reported as wrong names.
    bad = named.isna() if named.notna().any() and not valid.all() else ~valid
    if bad.any():
        row = _first(bad)
        raise DataError(
            f"{source.at(row)}: target {_show(values[row])} is not one of the classes; allowed: "
            f"{', '.join(label_space.classes)}, or their index 0 to {label_space.num_classes - 1}"
        )
    return numbers.astype(np.int64)


def _label(values: pd.Series[Any], column: str, source: _Source) -> pd.Series[Any]:
    """0, 1 or NaN (empty) as float32."""
    empty = values.isna() | (values.astype(str).str.strip() == "")
    numbers = pd.to_numeric(values, errors="coerce")
    bad = ~empty & ~numbers.isin((0, 1))
    if bad.any():
        row = _first(bad)
        raise DataError(f"{source.at(row)}: {column} is {_show(values[row])}; allowed: 0, 1, or empty where unknown")
    return numbers.astype(np.float32)


def _probability(values: pd.Series[Any], column: str, source: _Source) -> pd.Series[Any]:
    numbers = pd.to_numeric(values, errors="coerce")
    bad = ~numbers.between(0, 1)
    if bad.any():
        row = _first(bad)
        what = "not a number" if np.isnan(numbers[row]) else "outside [0, 1]"
        raise DataError(f"{source.at(row)}: {column} is {_show(values[row])}, {what}; give probabilities, not logits")
    return numbers


def _check_sums(probs: pd.DataFrame, source: _Source) -> None:
    sums = probs.astype(np.float64).sum(axis=1)
    bad = (sums - 1).abs() > SUM_TOLERANCE
    if bad.any():
        row = _first(bad)
        raise DataError(
            f"{source.at(row)}: the probabilities sum to {sums[row]:.6g}; for one label an image they must sum to 1 "
            f"± {SUM_TOLERANCE:g}"
        )


def _check_identity(table: pd.DataFrame, source: _Source) -> None:
    """Each image once, each split known, each group in one split."""
    double = table["image_id"].duplicated()
    if double.any():
        row = _first(double)
        name = table["image_id"][row]
        first = _first(table["image_id"] == name)
        raise DataError(f"{source.at(row)}: image_id {name!r} is also at {source.at(first)}; keep one row an image")
    unknown = ~table["split"].isin(SPLITS)
    if unknown.any():
        row = _first(unknown)
        raise DataError(f"{source.at(row)}: unknown split {table['split'][row]!r}; allowed: {', '.join(SPLITS)}")
    home = table.groupby("group_id")["split"].transform("first")
    moved = table["split"] != home
    if moved.any():
        row = _first(moved)
        group = table["group_id"][row]
        first = _first(table["group_id"] == group)
        raise DataError(
            f"{source.at(row)}: group {group!r} is in split {table['split'][row]}, but at {source.at(first)} in split "
            f"{home[row]}; all images of a group belong to one split, or test images resemble training images"
        )


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _first(mask: pd.Series[bool]) -> Any:
    """The index label of the first True."""
    return mask.index[int(np.argmax(mask.to_numpy()))]
