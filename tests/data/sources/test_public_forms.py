"""Tables in the forms that public datasets have, on images of noise: what once went wrong, and in silence."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raregrade.config import DataConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.prepare import prepare_dataset
from raregrade.data.verify import verify_dataset
from raregrade.errors import DataError

GRADES = ["1", "2", "3", "4"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def draw(raw: Path, names: Iterable[str]) -> None:
    rng = np.random.default_rng(6)
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(raw / name)


def prepare(raw: Path, lines: Iterable[str], **keys: Any) -> PreparedDataset:
    """Prepare images of grades 1 to 4 by the table ``lines``; the result is verified."""
    (raw / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    section = {"source": "folder", "path": str(raw), "task": "ordinal", "classes": GRADES, "image_size": 32}
    config = DataConfig.model_validate(section | {"label_column": "grade", "group_column": "patient"} | keys)
    dataset = prepare_dataset(config, 1, raw.parent / "prepared")
    assert verify_dataset(dataset.root) == []
    return dataset


def test_rows_that_end_with_a_comma_keep_their_columns(raw: Path) -> None:
    """ODIR: ID, age, two eyes, 0/1 labels; pandas took the first column for an index."""
    sides = ("left", "right")
    draw(raw, [f"{n}_{side}.jpg" for n in range(40) for side in sides])
    header = "ID,Age,Left-Fundus,Right-Fundus,N,D,G,C,O"
    rows = [
        f"{n},{40 + n},{n}_left.jpg,{n}_right.jpg,{','.join('01'[n % 5 == k] for k in range(5))}," for n in range(40)
    ]
    keys = {"task": "multilabel", "classes": list("NDGC"), "label_column": None, "image_column": "Left-Fundus"}
    dataset = prepare(raw, [header, *rows], **keys, group_column="ID")
    assert dataset.manifest["image_id"].tolist() == [f"{n}_left.jpg" for n in range(40)]
    assert dataset.manifest["group_id"].tolist() == [str(n) for n in range(40)]
    assert dataset.targets(np.arange(5)).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4]
    rows[7] += "x"
    with pytest.raises(DataError, match=r"line 9: 10 fields under 9 columns \(surplus: 'x'\)"):
        prepare(raw, [header, *rows], **keys, group_column="ID")


def test_blanks_behind_the_commas_of_the_header_are_accepted(raw: Path) -> None:
    draw(raw, [f"{n}.png" for n in range(40)])
    rows = [f"{n}.png, {n % 4 + 1}, p{n // 2}" for n in range(40)]
    dataset = prepare(raw, ["filename, grade, patient", *rows])
    assert dataset.targets(np.arange(4)).tolist() == [0, 1, 2, 3]
    assert dataset.info["num_groups"] == 20


def test_patients_called_na_are_refused_with_every_line(raw: Path) -> None:
    """As R writes a missing value; 14 images of different people were one patient."""
    draw(raw, [f"{n}.png" for n in range(40)])
    rows = [f"{n}.png,{n % 4 + 1},{'NA' if n % 3 == 0 else f'p{n}'}" for n in range(40)]
    with pytest.raises(DataError) as caught:
        prepare(raw, ["filename,grade,patient", *rows])
    assert str(caught.value).startswith("14 problems:")
    assert "line 2: the group (column 'patient') is empty: 'NA' stands for a missing value" in str(caught.value)


def test_windows_separators_find_the_images(raw: Path) -> None:
    draw(raw, [f"img/{n}.png" for n in range(40)])
    rows = [f"img\\{n}.png,{n % 4 + 1},P{n // 2}" for n in range(40)]
    dataset = prepare(raw, ["filename,grade,patient", *rows])
    assert dataset.manifest["image_id"][3] == dataset.manifest["source_path"][3] == "img/3.png"


def test_ids_without_a_suffix_find_the_images_in_their_folder(raw: Path) -> None:
    """APTOS: id_code and diagnosis, images in a folder beside the table."""
    draw(raw, [f"train_images/{n:012x}.png" for n in range(40)])
    rows = [f"{n:012x},{n % 4 + 1}" for n in range(40)]
    keys = {"image_column": "id_code", "label_column": "diagnosis", "group_column": None}
    dataset = prepare(raw, ["id_code,diagnosis", *rows], **keys)
    assert dataset.manifest["source_path"][10] == "train_images/00000000000a.png"
    assert dataset.manifest["image_id"][10] == "00000000000a"
    assert dataset.info["unit"] == "images"
    assert dataset.info["warnings"][0].startswith("data.group_column is not set")


@pytest.mark.parametrize("of_table", ["NFC", "NFD"])
@pytest.mark.parametrize("of_files", ["NFC", "NFD"])
def test_accents_are_compared_in_one_form(raw: Path, of_table: str, of_files: str) -> None:
    draw(raw, [unicodedata.normalize(of_files, f"œil_é{n}.png") for n in range(30)])
    classes = ["léger", "modéré", "sévère"]
    rows = [f"œil_é{n}.png,{classes[n % 3]},p{n // 2}" for n in range(30)]
    lines = [unicodedata.normalize(of_table, line) for line in ["filename,grade,patient", *rows]]
    dataset = prepare(raw, lines, classes=classes)
    assert dataset.targets(np.arange(3)).tolist() == [0, 1, 2]
    assert dataset.manifest["image_id"][0] == "œil_é0.png"


def test_findings_in_one_cell_are_read_with_a_separator(raw: Path) -> None:
    """NIH ChestX-ray14, whose header ends with a comma and has commas in names that are not quoted."""
    draw(raw, [f"{n // 2:08d}_{n % 2:03d}.png" for n in range(40)])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Original[Width,Height],Spacing[x,y],"
    cells = ["Effusion|Infiltration", "No Finding", "Mass", "Effusion"]
    rows = [f"{n // 2:08d}_{n % 2:03d}.png,{cells[n % 4]},{n % 2},{n // 2},2992,2991,0.143,0.143," for n in range(40)]
    dataset = prepare(
        raw, [header, *rows], task="multilabel", classes=["Effusion", "Infiltration", "Mass"],
        image_column="Image Index", group_column="Patient ID", label_column="Finding Labels", label_separator="|",
        negative_names=["No Finding"],
    )  # fmt: skip
    assert dataset.targets(np.arange(4)).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert dataset.info["num_groups"] == 20


def test_uncertain_and_blank_findings_follow_recorded_policies(raw: Path) -> None:
    """CheXpert: 1, 0, -1 (uncertain) and blank (not mentioned); patients only in the paths."""
    names = [f"train/patient{n // 2:05d}/study1/view{n % 2 + 1}_frontal.jpg" for n in range(40)]
    draw(raw, names)
    cells = ["1.0,,", ",-1.0,1.0", ",1.0,", ",0.0,-1.0"]
    rows = [f"{name},{cells[n % 4]}" for n, name in enumerate(names)]
    lines = ["Path,No Finding,Cardiomegaly,Edema", *rows]
    keys = {
        "task": "multilabel", "classes": ["No Finding", "Cardiomegaly", "Edema"], "label_column": None,
        "image_column": "Path", "group_column": None,
    }  # fmt: skip
    with pytest.raises(DataError, match=r"label '-1\.0' \(column 'Cardiomegaly'\)"):
        prepare(raw, lines, **keys)
    dataset = prepare(raw, lines, **keys, uncertain="ones", blank="zeros")
    assert dataset.targets(np.arange(4)).tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]]
    assert dataset.info["raw"]["labels"] == {
        "uncertain": {"policy": "ones", "cells": 20}, "blank": {"policy": "zeros", "cells": 60}
    }  # fmt: skip
    unset, *policies = dataset.info["warnings"]
    assert unset.endswith("(files are named after patients: 'patient00000' has 2 images)")
    assert policies == [
        "20 uncertain labels (-1) are read as 1 (data.uncertain: ones)",
        "60 blank labels are read as 0 (data.blank: zeros)",
    ]
