"""A folder of image files with a CSV table: labels, groups and, where given, a split.

The table is read as text and checked row by row; every problem is found before any image is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from raregrade.config import DataConfig
from raregrade.data.sources.base import RawDataset, Record, class_problems, group_problems, raise_problems
from raregrade.data.sources.decode import load_image, load_mask
from raregrade.data.splits import SPLITS
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

# How a 0/1 label column may say that the label is unknown.
_UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null"})
_FIRST_LINE = 2  # of the table: line 1 is the header


@dataclass(frozen=True)
class TableLayout:
    """Which columns of the table mean what. ``masks``: folder of the masks, named as the images, or None."""

    image: str
    labels: tuple[str, ...]
    group: str | None
    split: str | None
    masks: str | None = None
    id_is_stem: bool = False


def read_folder(config: DataConfig) -> RawDataset:
    """Read the table ``config.table`` in folder ``config.path``.

    An image's id is its file name as the table gives it. Without ``group_column`` each image is its own group,
    which a warning says.

    Raises:
        DataError: no such folder, table, column or image file; an unknown, empty or contradictory label; an empty
            group; a group in two splits; a class without images; a file named twice.
    """
    layout = TableLayout(config.image_column, _label_columns(config), config.group_column, config.split.column)
    warnings = []
    if layout.group is None:
        warnings.append(
            "data.group_column is not set: each image is its own group, so images of one patient may lie in "
            "train and in test"
        )
    records = read_records(config, layout)
    return RawDataset(records, {"table": config.table, "rows": len(records)}, warnings)


def read_records(config: DataConfig, layout: TableLayout) -> list[Record]:
    """The records of the table, all checked; raises as ``read_folder``."""
    root = Path(config.path)
    table = _read_table(root / config.table)
    _check_columns(table, layout, root / config.table)
    space = config.label_space()
    problems: list[str] = []
    records: list[Record] = []
    seen: dict[str, str] = {}
    for number, row in enumerate(table.to_dict("records"), start=_FIRST_LINE):
        where = f"{root / config.table}, line {number}"
        try:
            record = _record({str(k): str(v).strip() for k, v in row.items()}, where, config, space, layout)
        except DataError as err:
            problems.append(str(err))
            continue
        if record.source_path in seen:
            problems.append(f"{where}: {record.source_path!r} is already named in {seen[record.source_path]}")
        seen.setdefault(record.source_path, where.rsplit(", ", 1)[1])
        records.append(record)
    problems += group_problems(records)
    if not problems:
        problems += class_problems(records, space, str(root / config.table))
    raise_problems(problems, f"Mend {config.table}, or the keys under `data:` that say how to read it.")
    return records


def _read_table(path: Path) -> pd.DataFrame:
    if not path.parent.is_dir():
        raise DataError(f"data.path: no folder {path.parent}. Put the images and {path.name} there, or set data.path.")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
        table = table.fillna("")  # rows with fewer fields than the header
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file. Set data.table to the CSV file with the labels.") from err
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: cannot be read as CSV: {err}") from err
    table = _without_blank_end(table)
    if table.empty:
        raise DataError(f"{path}: the table has no rows. It needs one row an image below the header.")
    return table


def _without_blank_end(table: pd.DataFrame) -> pd.DataFrame:
    """Drop blank lines at the end of the file; a blank line between rows stays, so that line numbers stay true."""
    blank = (table == "").all(axis=1).to_numpy()
    last = len(table)
    while last and blank[last - 1]:
        last -= 1
    return table.iloc[:last]


def _check_columns(table: pd.DataFrame, layout: TableLayout, path: Path) -> None:
    wanted = [layout.image, *layout.labels, *(c for c in (layout.group, layout.split) if c is not None)]
    missing = [c for c in wanted if c not in table.columns]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))}; the columns are {', '.join(map(str, table.columns))}. "
            "Set data.image_column, data.label_column, data.group_column and data.split.column."
        )


def _label_columns(config: DataConfig) -> tuple[str, ...]:
    if isinstance(config.label_column, list):
        return tuple(config.label_column)
    if config.task == "multilabel":
        return tuple(config.classes)
    return (config.label_column or "label",)


def _record(row: dict[str, str], where: str, config: DataConfig, space: LabelSpace, layout: TableLayout) -> Record:
    name = row[layout.image]
    if not name:
        raise DataError(f"{where}: column {layout.image!r} is empty")
    path = Path(config.path) / name
    if not path.is_file():
        raise DataError(f"{where}: no image file {path}")
    image_id = Path(name).stem if layout.id_is_stem else name
    mask = None
    if layout.masks is not None:
        mask_path = Path(config.path) / layout.masks / f"{image_id}.png"
        if not mask_path.is_file():
            raise DataError(f"{where}: no mask file {mask_path}")
        mask = partial(load_mask, mask_path, config.image_size)
    return Record(
        image_id=image_id,
        group_id=_group(row, where, layout, image_id),
        split=_split(row, where, layout),
        label=_label(row, where, space, layout.labels),
        source_path=name,
        where=where,
        load=partial(load_image, path, config.image_size, config.color),
        load_mask=mask,
    )


def _group(row: dict[str, str], where: str, layout: TableLayout, image_id: str) -> str:
    if layout.group is None:
        return image_id
    group = row[layout.group]
    if group.lower() in {"", "nan"}:
        raise DataError(f"{where}: the group (column {layout.group!r}) is empty")
    return group


def _split(row: dict[str, str], where: str, layout: TableLayout) -> str | None:
    if layout.split is None:
        return None
    value = row[layout.split]
    if value not in SPLITS:
        raise DataError(f"{where}: split {value!r} (column {layout.split!r}); allowed: {', '.join(SPLITS)}")
    return value


def _label(row: dict[str, str], where: str, space: LabelSpace, columns: Sequence[str]) -> int | tuple[float, ...]:
    if space.task != "multilabel":
        return _class_index(row[columns[0]], where, space.classes, columns[0])
    values = tuple(_zero_one(row[c], where, c) for c in columns)
    if all(math.isnan(v) for v in values):
        raise DataError(f"{where}: every label ({_listed(columns)}) is empty; at least one must be known")
    return values


def _class_index(text: str, where: str, classes: Sequence[str], column: str) -> int:
    """The class that ``text`` names, as text or, "2.0" for "2", as the same number."""
    if text in classes:
        return classes.index(text)
    if text.lower() in {"", "nan"}:
        raise DataError(f"{where}: the label (column {column!r}) is empty")
    value = _number(text)
    if value is not None:
        for i, name in enumerate(classes):
            if _number(name) == value:
                return i
    raise DataError(f"{where}: label {text!r} (column {column!r}) is not a class; the classes are {_listed(classes)}")


def _zero_one(text: str, where: str, column: str) -> float:
    if text.lower() in _UNKNOWN:
        return math.nan
    value = _number(text)
    if value not in (0.0, 1.0):
        raise DataError(f"{where}: label {text!r} (column {column!r}); allowed: 0, 1 and empty for unknown")
    return float(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
