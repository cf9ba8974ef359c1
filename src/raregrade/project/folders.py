"""A folder of images without a table: one folder per class, as many data sets come, as a table of labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from raregrade.data.sources.files import SUFFIXES
from raregrade.data.splits import SPLITS
from raregrade.errors import UserError

TABLE = "labels.csv"


def rows_of_folders(root: Path) -> list[dict[str, str]]:
    """``filename`` and ``label`` of the images below ``root/<class>/``; ``split`` where these lie in train, val, test.

    Raises:
        UserError: no such folder, or its images do not lie in one folder per class.
    """
    if not root.is_dir():
        raise UserError(f"--images {root}: no such folder.")
    images = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    split = {p.parts[0] for p in images} == set(SPLITS)
    wrong = next((p for p in images if len(p.parts) < 2 + split), None)
    if not images or wrong is not None:
        found = f"{wrong} lies in none" if wrong is not None else "it holds no images"
        raise UserError(f"--images {root}: expected one folder per class, and {found}. Give a table with --table.")
    rows = [
        {"filename": p.as_posix(), "label": p.parts[int(split)]} | ({"split": p.parts[0]} if split else {})
        for p in images
    ]
    if len({row["label"] for row in rows}) < 2:
        raise UserError(f"--images {root}: all images lie in one class, {rows[0]['label']}. Give one folder per class.")
    return rows


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """``rows`` as the text of a table."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
