"""From the label cells of a table's row to the label of an image, with policies for what is uncertain or left blank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from raregrade.config import DataConfig
from raregrade.data.checks import Finding
from raregrade.errors import DataError
from raregrade.names import ClassNames, is_missing, normalised, number

_VALUES = {"zeros": 0.0, "ones": 1.0, "ignore": math.nan}
_TRUTH = ClassNames(("0", "1"))  # of a 0/1 label column


class LabelReader:
    """Reads the labels of each row, and counts what the policies decided.

    Args:
        config: ``label_separator`` and ``negative_names``, ``uncertain`` and ``blank``.
        columns: the label columns, normalised: one; or one a class.
    """

    def __init__(self, config: DataConfig, columns: tuple[str, ...]) -> None:
        self._config, self._columns = config, columns
        self._names = config.label_space().classes
        self._classes = ClassNames(self._names)
        self._negative = {normalised(name) for name in config.negative_names}
        self._counts = {"uncertain": 0, "blank": 0}

    def read(self, row: Mapping[str, str], where: str) -> int | tuple[float, ...]:
        """Class index, or 0.0, 1.0 or NaN (unknown) a class. Raises DataError for a wrong cell, with ``where``."""
        if self._config.task != "multilabel":
            return self._class_index(row[self._columns[0]], where)
        if self._config.label_separator:
            values = self._listed_classes(row[self._columns[0]], where)
        else:
            values = tuple(self._zero_one(row[c], where, c) for c in self._columns)
        if all(math.isnan(v) for v in values):
            raise DataError(f"{where}: every label ({_listed(self._columns)}) is empty; at least one must be known")
        return values

    def provenance(self) -> dict[str, object]:
        """The policies and how many cells each decided; nothing for labels of one column."""
        if self._config.task != "multilabel":
            return {}
        policies = {"uncertain": self._config.uncertain, "blank": self._config.blank}
        return {"labels": {key: {"policy": policies[key], "cells": n} for key, n in self._counts.items()}}

    def findings(self) -> list[Finding]:
        """That labels were decided by a policy which no one who made the table wrote down."""
        words = {"zeros": "read as 0", "ones": "read as 1", "ignore": "left out of losses and metrics"}
        found = []
        if self._counts["uncertain"]:
            text = f"{self._counts['uncertain']} uncertain labels (-1) are {words[self._config.uncertain]}"
            found.append(Finding("labels", f"{text} (data.uncertain: {self._config.uncertain})"))
        if self._counts["blank"] and self._config.blank != "ignore":
            text = f"{self._counts['blank']} blank labels are {words[self._config.blank]}"
            found.append(Finding("labels", f"{text} (data.blank: {self._config.blank})"))
        return found

    def _class_index(self, text: str, where: str) -> int:
        found = self._classes.find(text)
        if found is not None:
            return found
        column = self._columns[0]
        if is_missing(text):
            raise DataError(f"{where}: the label (column {column!r}) is empty{as_written(text)}")
        raise DataError(
            f"{where}: label {text!r} (column {column!r}) is not a class; the classes are {_listed(self._names)}"
        )

    def _listed_classes(self, text: str, where: str) -> tuple[float, ...]:
        """1 for each class that the cell names and 0 for the others; a blank cell by policy."""
        if is_missing(text) and normalised(text) not in self._negative:
            return (self._blank(where, self._columns[0]),) * len(self._names)
        values = [0.0] * len(self._names)
        for name in map(normalised, text.split(self._config.label_separator or None)):
            found = self._classes.find(name)
            if found is not None:
                values[found] = 1.0
            elif name not in self._negative:
                raise DataError(
                    f"{where}: {name!r} (column {self._columns[0]!r}) is not a class; the classes are "
                    f"{_listed(self._names)}. List a name that stands for none of them in data.negative_names"
                )
        return tuple(values)

    def _zero_one(self, text: str, where: str, column: str) -> float:
        if is_missing(text):
            return self._blank(where, column)
        value = _TRUTH.find(text)
        if value is not None:
            return float(value)
        if number(text) == -1:
            self._counts["uncertain"] += 1
            if self._config.uncertain != "refuse":
                return _VALUES[self._config.uncertain]
            allowed = "0, 1 and empty for unknown, and -1 (uncertain) with data.uncertain: zeros, ones or ignore"
        else:
            allowed = "0, 1 and empty for unknown"
        raise DataError(f"{where}: label {text!r} (column {column!r}); allowed: {allowed}")

    def _blank(self, where: str, column: str) -> float:
        self._counts["blank"] += 1
        if self._config.blank == "refuse":
            raise DataError(f"{where}: the label (column {column!r}) is blank; set data.blank to zeros or ignore")
        return _VALUES[self._config.blank]


def as_written(text: str) -> str:
    """How a missing value is written, where it is not simply left out."""
    return f": {text!r} stands for a missing value" if text else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
