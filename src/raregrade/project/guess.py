"""What a table of labels most likely means: the section ``data`` of params.yaml, guessed and said in words.

A guess is shown before it is used, and every key of it can be changed. ``raregrade.tables`` reads tables, and
``raregrade.data.sources`` checks what their cells mean for training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raregrade.data.sources.files import ImageFiles
from raregrade.data.splits import SPLITS
from raregrade.errors import DataError
from raregrade.names import is_missing, normalised, patient_like, perhaps_patient_like
from raregrade.project.folders import TABLE
from raregrade.project.grades import in_order
from raregrade.tables import TextTable, read_text_table

_SAMPLE = 40
_SIZES = (32, 64, 96, 128, 160, 192, 224)
_MOST_CLASSES = 30
_FEWEST_POSITIVES = 10
_STRONG = {
    *("label", "labels", "grade", "grading", "level", "diagnosis", "dx", "class", "target", "severity", "stage"),
    *("score", "category", "y", "birads", "klgrade"),
}
_WEAK = re.compile(r"label|grade|level|diagnos|class|target|severity|stage|score|global|total|overall|finding")
_NO_LABEL = re.compile(
    r"age|sex|gender|male|female|view|frontal|lateral|appa|width|height|offset|url|doi|licen[cs]e|source|date|time|"
    r"surviv|intubat|icu|follow|spacing|device|hospital|site|localization|type$|id$|filename|path$"
)
_NO_PATIENT = (
    "no column looks like the patient, so images of one patient may lie in train and in test: set data.group_column."
)
_NEGATIVE = re.compile(r"no ?findings?|normal|healthy|none")


@dataclass
class Guess:
    """The section ``data`` as it was guessed.

    Attributes:
        data: keys and values of the section.
        reasons: why, by key, in a few words.
        remarks: what a user has to know beside it, one sentence each.
    """

    data: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, reason: str = "") -> None:
        self.data[key] = value
        if reason:
            self.reasons[key] = reason


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]

    @property
    def filled(self) -> list[str]:
        return [cell for cell in self.cells if cell and not is_missing(cell)]

    @property
    def labelled(self) -> list[str]:
        """The cells that hold a label: "none" is a grade here, and no missing value."""
        return [cell for cell in self.cells if cell.lower() == "none" or (cell and not is_missing(cell))]

    @property
    def compact(self) -> str:
        return re.sub(r"[\W_]", "", self.name).lower()


def guess_table(path: Path) -> Guess:
    """What the table ``path``, which lies in the folder of its images, says of them.

    Raises:
        DataError: the table cannot be read, no column names images, or none looks like labels.
        FileNotFoundError: no such file.
    """
    table = read_text_table(path)
    if not table.rows:
        raise DataError(f"{path}: the table has no rows. It needs one row per image below the header.")
    columns = [_Column(name, [normalised(c) for c in table.column(name)]) for name in table.columns if name]
    guess = Guess({"source": "folder", "path": str(path.parent), "table": path.name})
    files = ImageFiles(path.parent)
    image = _image_column(columns, files, path)
    guess.set("image_column", image.name, "its cells name image files")
    others = [c for c in columns if c is not image]
    group = _group_column(table, others, image)
    if group is None:
        guess.remarks.append(_NO_PATIENT)
    else:
        guess.set("group_column", group.name, f"{len(set(group.cells))} groups, each kept in one split")
        blank = len(group.cells) - len(group.filled)
        if blank:
            guess.remarks.append(f"{blank} rows have no {group.name}: fill them in, or `prepare` refuses them.")
        others.remove(group)
    split = next((c for c in others if set(c.cells) == set(SPLITS)), None)
    if split is not None:
        guess.set("split", {"column": split.name}, "an existing split")
        others.remove(split)
    if not _guess_labels(guess, others):
        raise DataError(
            f"{path}: no column looks like labels; the columns are {', '.join(filter(None, table.columns))}. Name the "
            "one with the labels `label`, or run `raregrade init` without --table and write `data` in params.yaml."
        )
    _guess_images(guess, path.parent, [files.find(name) for name in _sample(image.cells) if _found(files, name)])
    return guess


def _image_column(columns: Sequence[_Column], files: ImageFiles, path: Path) -> _Column:
    def hits(column: _Column) -> int:
        if len(set(column.cells)) < 0.9 * len(column.cells):
            return 0
        return sum(_found(files, cell) for cell in _sample(column.cells) if cell)

    found = [(hits(column), column) for column in columns]
    most = max(count for count, _ in found)
    if most < 0.5 * len(_sample(columns[0].cells)):
        raise DataError(
            f"{path}: no column names images that lie in {path.parent} or below. Put the table into the folder of its "
            "images, one row per image."
        )
    return next(column for count, column in found if count == most)


def _found(files: ImageFiles, name: str) -> bool:
    try:
        return bool(files.find(name))
    except DataError:
        return False


def _sample(values: Sequence[str]) -> list[str]:
    step = max(1, len(values) // _SAMPLE)
    return list(values[::step][:_SAMPLE])


def _group_column(table: TextTable, columns: Sequence[_Column], image: _Column) -> _Column | None:
    names = patient_like(table.columns)
    names += [n for n in perhaps_patient_like(table.columns) if n not in names]
    for name in names:
        column = next((c for c in columns if c.name == name), None)
        if column is None:
            continue
        several = len(set(column.filled)) < len(column.filled)
        if patient_like([name]) or (several and len(set(column.filled)) * 20 >= len(image.cells)):
            return column
    return None


def _guess_labels(guess: Guess, columns: Sequence[_Column]) -> bool:
    """Fill in task, classes and columns, by the most telling form of labels that the table has."""
    single = [c for c in columns if 2 <= len(set(c.labelled)) <= min(_MOST_CLASSES, max(2, len(c.cells) // 2))]
    strong = [c for c in single if c.compact in _STRONG]
    if strong:
        return _set_single(guess, strong[0])
    binary = [c for c in columns if not _NO_LABEL.search(c.compact) and _is_binary(c)]
    if len(binary) >= 2:
        return _set_binary(guess, binary, columns)
    lists = [c for c in columns if any("|" in cell for cell in c.cells) and not _NO_LABEL.search(c.compact)]
    if lists:
        return _set_lists(guess, lists[0])
    likely = [c for c in single if not _NO_LABEL.search(c.compact)]
    weak = sorted((c for c in likely if _WEAK.search(c.compact)), key=lambda c: not _are_integers(c.labelled))
    left = weak or (likely if len(likely) == 1 else [])
    return _set_single(guess, left[0]) if left else False


def _set_single(guess: Guess, column: _Column) -> bool:
    counts = Counter(column.labelled)
    grades = in_order(counts)
    if _are_integers(column.labelled):
        classes = [str(value) for value in sorted({int(float(cell)) for cell in column.labelled})]
        task, why = ("ordinal", "whole numbers, taken as grades") if len(classes) > 2 else ("multiclass", "two classes")
    elif grades is not None:
        classes, task, why = grades, "ordinal", "their names are grades"
    else:
        classes, task, why = [name for name, _ in counts.most_common()], "multiclass", "names without an order"
    guess.set("task", task, why)
    guess.set("classes", classes, "lowest grade first" if task == "ordinal" else "most frequent first")
    guess.set("label_column", column.name)
    rare = [name for name, count in counts.items() if count < _FEWEST_POSITIVES]
    if rare:
        guess.remarks.append(
            f"fewer than {_FEWEST_POSITIVES} images each have {column.name} {', '.join(sorted(rare))}."
        )
    blank = len(column.cells) - len(column.labelled)
    if blank:
        guess.remarks.append(f"{blank} rows have no {column.name}: remove or label them, or `prepare` refuses them.")
    return True


def _set_binary(guess: Guess, binary: Sequence[_Column], columns: Sequence[_Column]) -> bool:
    positives = {c.name: sum(float(cell) == 1 for cell in c.filled) for c in binary}
    classes = [
        name for name, n in positives.items() if n >= _FEWEST_POSITIVES and not _NEGATIVE.fullmatch(name.lower())
    ] or [name for name, n in positives.items() if n]
    left = [name for name in positives if name not in classes]
    guess.set("task", "multilabel", f"{len(binary)} columns of 0 and 1")
    guess.set("classes", classes, "the columns")
    if left:
        guess.remarks.append(
            f"left out, as they name no finding or have fewer than {_FEWEST_POSITIVES} images: {', '.join(left)}."
        )
    edges = _edges(columns, set(positives), set(classes))
    if edges:
        guess.set("hierarchy", edges, "[parent, child], from a column of paths")
    if any(float(cell) == -1 for c in binary if c.name in classes for cell in c.filled):
        guess.set("uncertain", "ignore", "what -1 means: ignore, zeros or ones")
    if any(len(c.filled) < len(c.cells) for c in binary if c.name in classes):
        guess.set("blank", "ignore", "what an empty cell means: ignore or zeros")
    return bool(classes)


def _edges(columns: Sequence[_Column], names: set[str], classes: set[str]) -> list[list[str]]:
    """Parents and children where a column holds paths of the findings, such as ``Pneumonia/Viral``."""
    for column in columns:
        paths = [cell.split("/") for cell in set(column.filled)]
        known = [p for p in paths if names.issuperset(p)]
        if any(len(p) > 1 for p in known) and len(known) >= len(paths) / 2:
            pairs = {(a, b) for p in known for a, b in pairwise(p) if {a, b} <= classes}
            return sorted(map(list, pairs))
    return []


def _set_lists(guess: Guess, column: _Column) -> bool:
    counts = Counter(normalised(part) for cell in column.filled for part in cell.split("|"))
    negative = [name for name in counts if _NEGATIVE.fullmatch(name.lower())]
    guess.set("task", "multilabel", f"{column.name} names all findings of an image")
    guess.set("classes", [name for name, _ in counts.most_common() if name not in negative], "most frequent first")
    guess.set("label_column", column.name)
    guess.set("label_separator", "|")
    if negative:
        guess.set("negative_names", negative, "stand for none of the classes")
    return len(guess.data["classes"]) > 0


def _is_binary(column: _Column) -> bool:
    values = {_number(cell) for cell in column.filled}
    return bool(values) and values <= {0.0, 1.0, -1.0}


def _are_integers(cells: Sequence[str]) -> bool:
    return all((value := _number(cell)) is not None and value == int(value) for cell in cells)


def _number(cell: str) -> float | None:
    return float(cell) if re.fullmatch(r"-?\d+(\.\d*)?", cell) else None


def _guess_images(guess: Guess, root: Path, names: Sequence[str]) -> None:
    """Fill in size and colour from a sample of the images."""
    sides, coloured = [], False
    for name in names[:20]:
        try:
            with Image.open(root / name) as image:
                sides.append(min(image.size))
                if image.mode not in ("L", "1", "I", "F") and not image.mode.startswith("I;"):
                    pixels = np.asarray(image.convert("RGB"))
                    coloured = coloured or bool((pixels != pixels[..., :1]).any())
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
            raise DataError(f"{root / name}: not a readable image ({err})") from err
    _set_size(guess, sorted(sides)[len(sides) // 2], coloured=coloured)


def _set_size(guess: Guess, side: int, *, coloured: bool) -> None:
    size = max((s for s in _SIZES if s <= side), default=max(16, side))
    guess.set("image_size", size, f"the shorter side of the images is {side} px")
    guess.set("color", "rgb" if coloured else "grey")


def guess_folders(root: Path, rows: Sequence[Mapping[str, str]]) -> Guess:
    """The section for images in one folder per class; ``rows`` as ``folders.rows_of_folders`` has them."""
    guess = Guess({"source": "folder", "path": str(root), "table": TABLE})
    _set_single(guess, _Column("label", [normalised(row["label"]) for row in rows]))
    guess.remarks.append(_NO_PATIENT)
    if "split" in rows[0]:
        guess.set("split", {"column": "split"}, "the folders train, val and test")
    _guess_images(guess, root, _sample([row["filename"] for row in rows]))
    return guess


def guess_medmnist(path: Path) -> Guess:
    """The section for a MedMNIST file. Raises DataError: it is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            labels, images = archive["train_labels"], archive["train_images"]
    except (OSError, ValueError, KeyError) as err:
        raise DataError(f"{path}: no MedMNIST file: {err}. Give a table of labels, or a folder of images.") from err
    guess = Guess({"source": "medmnist", "path": str(path)})
    several = labels.ndim == 2 and labels.shape[1] > 1
    count = labels.shape[1] if several else int(labels.max()) + 1
    ordinal = not several and "retina" in path.stem.lower()
    guess.set("task", "multilabel" if several else "ordinal" if ordinal else "multiclass")
    guess.set("classes", [str(number) for number in range(count)], "the file's label numbers")
    guess.set("image_size", int(images.shape[1]), "as in the file")
    guess.set("color", "rgb" if images.ndim == 4 else "grey")
    return guess
