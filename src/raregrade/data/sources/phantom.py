"""The phantom's folder as a source: fixed columns, and a mask for each image. Drawing it is ``data.phantom``'s."""

from __future__ import annotations

import json
from pathlib import Path

from raregrade.config import DataConfig
from raregrade.data.phantom import INFO_FILE, LABEL_COLUMN, PATIENT_COLUMN
from raregrade.data.sources.base import TABLE_KEYS, RawDataset, keys_given
from raregrade.data.sources.folder import TableLayout, read_records
from raregrade.errors import ConfigError, DataError
from raregrade.labels import LabelSpace


def read_phantom(config: DataConfig) -> RawDataset:
    """Read what ``draw_phantom`` wrote to ``config.path``.

    Raises:
        ConfigError: a key that says how to read a table; the phantom's table is fixed.
        DataError: no phantom there, or its task, classes or hierarchy are not those under ``data:``; else as
            ``read_folder``.
    """
    chosen = [f"data.{key}" for key in keys_given(config, TABLE_KEYS)]
    if chosen:
        raise ConfigError(
            f"{', '.join(chosen)}: the columns and files are fixed for source phantom; remove the keys, or set "
            "data.source to folder"
        )
    info = _read_info(Path(config.path) / INFO_FILE)
    drawn, wanted = LabelSpace.from_json(info.get("label_space")), config.label_space()
    if (drawn.task, drawn.classes, set(drawn.edges)) != (wanted.task, wanted.classes, set(wanted.edges)):
        raise DataError(
            f"{config.path}: the phantom there has task {drawn.task}, classes {list(drawn.classes)} and hierarchy "
            f"{[list(e) for e in drawn.edges]}; under data: there is task {wanted.task}, classes "
            f"{list(wanted.classes)} and hierarchy {[list(e) for e in wanted.edges]}. Change data.task, data.classes "
            "and data.hierarchy, or draw the other flavour with `raregrade phantom`."
        )
    labels = drawn.classes if drawn.task == "multilabel" else (LABEL_COLUMN[drawn.task],)
    layout = TableLayout("filename", labels, PATIENT_COLUMN, config.split.column, masks="masks", id_is_stem=True)
    raw = read_records(config, layout)
    return RawDataset(raw.records, {"phantom": info}, raw.findings)


def _read_info(path: Path) -> dict[str, object]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(
            f"{path.parent}: no phantom there. Draw one with `raregrade phantom --out {path.parent}`."
        ) from err
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: cannot be read: {err}. Draw the phantom again with `raregrade phantom`.") from err
    if not isinstance(info, dict):
        raise DataError(f"{path}: not a phantom's description. Draw the phantom again with `raregrade phantom`.")
    return info
