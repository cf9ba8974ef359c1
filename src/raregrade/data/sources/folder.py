"""A folder of image files with a CSV table: labels, groups and, where given, a split.

The table is read as text and checked row by row; every problem is found before any image is decoded.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from raregrade.config import DataConfig
from raregrade.data.checks import Finding
from raregrade.data.sources.base import Mask, RawDataset, Record, class_problems, group_problems, raise_problems
from raregrade.data.sources.decode import load_image, load_mask
from raregrade.data.sources.files import ImageFiles
from raregrade.data.sources.grouping import ungrouped
from raregrade.data.sources.labels import LabelReader, as_written
from raregrade.data.splits import SPLITS
from raregrade.errors import DataError
from raregrade.names import is_missing, normalised, suspicious_ids
from raregrade.tables import TextTable, check_alike, read_text_table


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

    An image's id is its name as the table gives it, with ``/`` between folders and in composed Unicode. Names, ids and
    classes are compared in that form, and without blanks at their ends. Without ``group_column`` each image is its
    own group, which a finding says, and whether the table has a column that looks like the patient (``grouping``).

    Raises:
        DataError: no such folder, table, column or image file; a table that cannot be read for sure (``tables``); an
            unknown, missing or contradictory label; a missing group; a group in two splits; a class without images; a
            file named twice.
    """
    layout = TableLayout(config.image_column, _label_columns(config), config.group_column, config.split.column)
    return read_records(config, layout)


def read_records(config: DataConfig, layout: TableLayout) -> RawDataset:
    """The records of the table, all checked; raises as ``read_folder``."""
    root = Path(config.path)
    table = _read_table(root / config.table)
    layout = _checked_layout(table, layout)
    reader = _RowReader(config, layout)
    problems: list[str] = []
    records: list[Record] = []
    seen: dict[str, str] = {}
    for i, row in enumerate(table.records()):
        where = table.where(i)
        try:
            record = reader.record(row, where)
        except DataError as err:
            problems.append(str(err))
            continue
        path = posixpath.normpath(record.source_path)
        if path in seen:
            problems.append(f"{where}: {record.source_path!r} is already named in {seen[path]}")
        seen.setdefault(path, where.rsplit(", ", 1)[1])
        records.append(record)
    problems += group_problems(records)
    if not problems:
        problems += class_problems(records, config.label_space(), str(table.path))
    raise_problems(problems, f"Mend {config.table}, or the keys under `data:` that say how to read it.")
    found = [Finding("encoding", note) for note in table.notes]
    found += ungrouped(table, layout.group, [r.image_id for r in records])
    found += _blank_ids(table, layout)
    found += reader.labels.findings()
    provenance = {"table": config.table, "rows": len(records), **reader.labels.provenance()}
    return RawDataset(records, provenance, found)


def _read_table(path: Path) -> TextTable:
    if not path.parent.is_dir():
        raise DataError(f"data.path: no folder {path.parent}. Put the images and {path.name} there, or set data.path.")
    try:
        table = read_text_table(path)
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file. Set data.table to the CSV file with the labels.") from err
    if not table.rows:
        raise DataError(f"{path}: the table has no rows. It needs one row per image below the header.")
    return table


def _checked_layout(table: TextTable, layout: TableLayout) -> TableLayout:
    """``layout`` with the names as the header has them, all of them there and none of them there twice."""
    layout = replace(
        layout,
        image=normalised(layout.image),
        labels=tuple(normalised(name) for name in layout.labels),
        group=layout.group and normalised(layout.group),
        split=layout.split and normalised(layout.split),
    )
    wanted = [layout.image, *layout.labels, *(c for c in (layout.group, layout.split) if c is not None)]
    missing = [c for c in wanted if c not in table.columns]
    if missing:
        raise DataError(
            f"{table.path}: no column {', '.join(map(repr, missing))}; the columns are "
            f"{', '.join(filter(None, table.columns))}. "
            "Set data.image_column, data.label_column, data.group_column and data.split.column."
        )
    check_alike(table.columns, wanted, str(table.path))
    return layout


def _blank_ids(table: TextTable, layout: TableLayout) -> list[Finding]:
    """Patients written with and without blanks, which are read as one."""
    if layout.group is None:
        return []
    padded = {cell for cell in table.column(layout.group) if cell != normalised(cell)}
    bare = {normalised(cell) for cell in padded}
    texts = suspicious_ids([*padded, *bare.intersection(table.column(layout.group))], "patient")
    return [Finding("suspicious_ids", f"{text} (blanks at the ends are left out)") for text in texts]


def _label_columns(config: DataConfig) -> tuple[str, ...]:
    if isinstance(config.label_column, list):
        return tuple(config.label_column)
    if config.task == "multilabel" and config.label_column is None:
        return tuple(config.classes)
    return (config.label_column or "label",)


class _RowReader:
    """Turns rows of the table, as dicts of normalised cells, into records."""

    def __init__(self, config: DataConfig, layout: TableLayout) -> None:
        self._config, self._layout = config, layout
        self._root = Path(config.path)
        self._files = ImageFiles(self._root, config.image_folder, config.image_suffix)
        self.labels = LabelReader(config, layout.labels)

    def record(self, row: dict[str, str], where: str) -> Record:
        """Raises DataError for a cell that is missing or wrong, with ``where``."""
        config, layout = self._config, self._layout
        name = row[layout.image]
        if is_missing(name):
            raise DataError(f"{where}: column {layout.image!r} is empty{as_written(name)}")
        try:
            source_path = self._files.find(name)
        except DataError as err:
            raise DataError(f"{where}: {err}") from err
        portable = name.replace("\\", "/")
        image_id = Path(portable).stem if layout.id_is_stem else portable
        return Record(
            image_id=image_id,
            group_id=self._group(row, where, image_id),
            split=self._split(row, where),
            label=self.labels.read(row, where),
            source_path=source_path,
            where=where,
            load=partial(load_image, self._root / source_path, config.image_size, config.color),
            load_mask=self._mask(image_id, where),
        )

    def _mask(self, image_id: str, where: str) -> partial[Mask] | None:
        if self._layout.masks is None:
            return None
        path = self._root / self._layout.masks / f"{image_id}.png"
        if not path.is_file():
            raise DataError(f"{where}: no mask file {path}")
        return partial(load_mask, path, self._config.image_size)

    def _group(self, row: dict[str, str], where: str, image_id: str) -> str:
        column = self._layout.group
        if column is None:
            return image_id
        if is_missing(row[column]):
            raise DataError(
                f"{where}: the group (column {column!r}) is empty{as_written(row[column])}; name the patient"
            )
        return row[column]

    def _split(self, row: dict[str, str], where: str) -> str | None:
        column = self._layout.split
        if column is None:
            return None
        if row[column] not in SPLITS:
            raise DataError(f"{where}: split {row[column]!r} (column {column!r}); allowed: {', '.join(SPLITS)}")
        return row[column]
