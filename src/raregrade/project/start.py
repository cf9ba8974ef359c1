"""What ``raregrade init`` is given, as a guess: a table, a MedMNIST file, a folder of images, or nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raregrade.config import load_params
from raregrade.data.sources import read_source
from raregrade.errors import DataError, UserError
from raregrade.project.folders import TABLE, as_csv, rows_of_folders
from raregrade.project.guess import Guess, guess_folders, guess_medmnist, guess_table
from raregrade.project.scaffold import PHANTOM_DATA, path_in_project


def guess_of(folder: Path, table: Path | None, images: Path | None) -> tuple[Guess, tuple[Path, str] | None]:
    """The guess for a project in ``folder``, and a table to write (its path and text) where there is none yet.

    Raises:
        UserError: both or neither can be read as labels of images; names what is missing.
    """
    if table is not None and images is not None:
        raise UserError("init: give either --table or --images.")
    if images is not None:
        tables = [images] if images.suffix == ".npz" else sorted(images.glob("*.csv"))
        if len(tables) > 1:
            raise UserError(f"--images {images}: has {len(tables)} tables. Give the one with the labels as --table.")
        table = tables[0] if tables else None
    if table is None and images is None:
        return Guess(dict(PHANTOM_DATA)), None
    new_table = None
    if table is None and images is not None:
        rows = rows_of_folders(images)
        guess, new_table = guess_folders(images, rows), (images / TABLE, as_csv(rows))
    elif table is not None:
        try:
            guess = guess_medmnist(table) if table.suffix == ".npz" else guess_table(table)
        except FileNotFoundError as err:
            raise UserError(f"--table {table}: no such file.") from err
    guess.data["path"] = path_in_project(folder, Path(guess.data["path"]))
    return guess, new_table


def problem_with(params: str, folder: Path, *, has_table: bool) -> str:
    """The first problem of what ``prepare`` would refuse in the raw data that ``params`` names; empty where nothing.

    Raises:
        ConfigError: ``params`` are wrong.
    """
    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        path = Path(scratch) / "params.yaml"
        path.write_text(params, encoding="utf-8")
        data = load_params(path).data
    if data.source == "phantom" or not has_table:
        return ""
    try:
        read_source(data.model_copy(update={"path": str(folder / data.path)}))
    except DataError as err:
        return " ".join(line.strip() for line in str(err).splitlines()[:2])
    return ""
