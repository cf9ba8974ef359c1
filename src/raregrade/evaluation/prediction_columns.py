"""The columns of a table of predictions, one by one: from what a file holds to checked names, classes and numbers.

What the columns mean together (identities, sums, splits) is ``predictions``'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.names import ClassNames, is_missing, normalised, number

_TRUTH = ClassNames(("0", "1"))  # of a 0/1 label


@dataclass(frozen=True)
class Source:
    """Where a table came from, to name it and its rows in errors: ``first_row`` is the number of index 0."""

    name: str
    first_row: int
    row: str = "row"
    notes: tuple[str, ...] = ()

    def at(self, index: Any) -> str:
        return f"{self.name}, {self.row} {int(index) + self.first_row}"


def texts_of(values: pd.Series[Any]) -> list[str]:
    """Each value as normalised text: 3.0 in a column of floats is "3", what is missing is ""."""
    return [normalised(_text(v)) for v in values.astype(object)]


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else str(int(value)) if float(value).is_integer() else str(value)
    return "" if value is None or value is pd.NA else str(value)


def names_of(frame: pd.DataFrame, column: str, source: Source) -> pd.Series[Any]:
    """Ids or names as text. Raises DataError where one is missing, with its row."""
    names = pd.Series(texts_of(frame[column]), index=frame.index, dtype=object)
    empty = names.map(is_missing).astype(bool)
    if empty.any():
        row = first_true(empty)
        written = f": {names[row]!r} stands for a missing value" if names[row] else ""
        raise DataError(f"{source.at(row)}: {column} is empty{written}; every row needs one")
    return names


def class_indices(values: pd.Series[Any], label_space: LabelSpace, source: Source) -> tuple[pd.Series[Any], list[str]]:
    """Class positions as int64 from names or, where no class is called by a number, from positions; assumptions.

    Raises:
        DataError: a value that is neither, with its row, or one that is a position where numbers are names.
    """
    classes, texts = ClassNames(label_space.classes), texts_of(values)
    named = pd.Series([classes.find(text) for text in texts], index=values.index, dtype="Int64")
    if named.notna().all():
        return named.astype(np.int64), []
    positions = pd.Series([_position(text, label_space.num_classes) for text in texts], values.index, dtype="Int64")
    listed = ", ".join(label_space.classes)
    if not classes.are_numbers and positions.notna().all():
        assumed = f"target holds numbers, and the classes are names: taken as positions from 0 in {listed}"
        return positions.astype(np.int64), [assumed]
    # A few wrong values among names are reported as wrong names.
    by_name = classes.are_numbers or named.notna().any()
    row = first_true(named.isna() if by_name else positions.isna())
    allowed = listed if classes.are_numbers else f"{listed}, or for all rows their positions from 0"
    hint = ""
    if classes.are_numbers and positions.notna().all():
        hint = (
            f". As positions from 0 all targets would fit (0 for {label_space.classes[0]!r}), but where classes are "
            "called by numbers a number is a name: write the class names"
        )
    raise DataError(
        f"{source.at(row)}: target {_show(values[row])} is not one of the classes; allowed: {allowed}{hint}"
    )


def _position(text: str, num_classes: int) -> int | None:
    value = number(text)
    return int(value) if value is not None and value in range(num_classes) else None


def labels_of(values: pd.Series[Any], column: str, source: Source) -> pd.Series[Any]:
    """0, 1 or NaN (missing) as float32. Raises DataError for another value, with its row."""
    texts = pd.Series(texts_of(values), index=values.index, dtype=object)
    labels = texts.map(lambda text: np.nan if is_missing(text) else _TRUTH.find(text))
    bad = labels.isna() & ~texts.map(is_missing).astype(bool)
    if bad.any():
        row = first_true(bad)
        raise DataError(f"{source.at(row)}: {column} is {_show(values[row])}; allowed: 0, 1, or empty where unknown")
    return labels.astype(np.float32)


def numbers_of(values: pd.Series[Any], column: str, source: Source) -> pd.Series[Any]:
    """Numbers of any size. Raises DataError for what is missing or no number, with its row."""
    numeric = pd.api.types.is_numeric_dtype(values)
    numbers: pd.Series[Any] = pd.to_numeric(values if numeric else values.astype(object), errors="coerce")
    bad = numbers.isna()
    if bad.any():
        row = first_true(bad)
        comma = "; write decimals with a point" if re.fullmatch(r"\s*-?\d*,\d+\s*", str(values[row])) else ""
        raise DataError(f"{source.at(row)}: {column} is {_show(values[row])}, not a number{comma}")
    return numbers


def probabilities_of(values: pd.Series[Any], column: str, source: Source) -> pd.Series[Any]:
    """Numbers in [0, 1]. Raises DataError for others, with the row."""
    numbers = numbers_of(values, column, source)
    bad = ~numbers.between(0, 1)
    if bad.any():
        row = first_true(bad)
        raise DataError(
            f"{source.at(row)}: {column} is {_show(values[row])}, outside [0, 1]; give probabilities, not logits"
        )
    return numbers


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def first_true(mask: pd.Series[bool]) -> Any:
    """The index label of the first True."""
    return mask.index[int(np.argmax(mask.to_numpy()))]
