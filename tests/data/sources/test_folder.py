"""A folder with a table: what is read, and what is refused with file and line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from raregrade.data.sources import read_source
from raregrade.errors import DataError

if TYPE_CHECKING:
    from tests.data.conftest import ImageFolder


def test_each_row_becomes_a_record(image_folder: ImageFolder) -> None:
    raw = read_source(image_folder.config())
    assert len(raw.records) == 24
    record = raw.records[2]
    assert (record.image_id, record.source_path) == ("images/01_0.png", "images/01_0.png")
    assert (record.group_id, record.label, record.split) == ("p01", 1, None)
    assert record.where.endswith("labels.csv, line 4")
    assert record.load().shape == (16, 16, 3)
    assert raw.warnings == []


def test_without_a_group_column_each_image_is_its_own_group_and_a_warning_says_so(image_folder: ImageFolder) -> None:
    raw = read_source(image_folder.config(group_column=None))
    assert len({r.group_id for r in raw.records}) == 24
    assert "data.group_column is not set" in raw.warnings[0]


def test_numerals_match_as_numbers(image_folder: ImageFolder) -> None:
    image_folder.table["grade"] = [("0", "1.0", "2")[i // 2 % 3] for i in range(24)]
    raw = read_source(image_folder.config(classes=["0", "1", "2"]))
    assert [r.label for r in raw.records[:6]] == [0, 0, 1, 1, 2, 2]


def test_a_class_called_none_is_a_name_and_not_a_gap(image_folder: ImageFolder) -> None:
    image_folder.table["grade"] = image_folder.table["grade"].replace("low", "None")
    raw = read_source(image_folder.config(classes=["None", "middle", "high"]))
    assert raw.records[0].label == 0


def test_several_columns_give_several_labels_and_empty_means_unknown(image_folder: ImageFolder) -> None:
    image_folder.table["x"] = ["1", "0"] * 12
    image_folder.table["y"] = ["", "1.0"] * 12
    config = image_folder.config(task="multilabel", classes=["ex", "why"], label_column=["x", "y"])
    labels = [r.label for r in read_source(config).records[:2]]
    assert labels[1] == (0.0, 1.0)
    assert isinstance(labels[0], tuple)
    assert labels[0][0] == 1.0
    assert math.isnan(labels[0][1])


def test_columns_of_a_multilabel_table_are_named_as_the_classes_by_default(image_folder: ImageFolder) -> None:
    image_folder.table["x"], image_folder.table["y"] = ["1", "0"] * 12, ["0", "1"] * 12
    config = image_folder.config(task="multilabel", classes=["x", "y"], label_column=None)
    assert [r.label for r in read_source(config).records[:2]] == [(1.0, 0.0), (0.0, 1.0)]


def test_a_split_column_is_read(image_folder: ImageFolder) -> None:
    image_folder.table["part"] = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    config = image_folder.config(split={"column": "part"})
    assert [r.split for r in read_source(config).records] == list(image_folder.table["part"])


def test_a_byte_order_mark_and_blank_lines_at_the_end_do_no_harm(image_folder: ImageFolder) -> None:
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert len(read_source(config).records) == 24


def refusal(folder: ImageFolder, **keys: object) -> str:
    with pytest.raises(DataError) as caught:
        read_source(folder.config(**keys))
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("filename", "images/gone.png", "line 5: no image file"),
        ("filename", "", "line 5: column 'filename' is empty"),
        ("filename", "images/00_0.png", "line 5: 'images/00_0.png' is already named in line 2"),
        ("grade", "fatal", "line 5: label 'fatal' (column 'grade') is not a class; the classes are low, middle, high"),
        ("grade", "", "line 5: the label (column 'grade') is empty"),
        ("grade", "NaN", "line 5: the label (column 'grade') is empty"),
        ("patient", " ", "line 5: the group (column 'patient') is empty"),
    ],
)
def test_a_bad_cell_is_named_with_file_and_line(
    image_folder: ImageFolder, column: str, value: str, message: str
) -> None:
    image_folder.table.loc[3, column] = value
    error = refusal(image_folder)
    assert "labels.csv, " in error
    assert message in error


def test_a_bad_split_is_named_with_line_and_what_is_allowed(image_folder: ImageFolder) -> None:
    image_folder.table["part"] = ["train"] * 23 + ["holdout"]
    error = refusal(image_folder, split={"column": "part"})
    assert "line 25: split 'holdout' (column 'part'); allowed: train, val, test" in error


def test_a_group_in_two_splits_is_refused_with_both_lines(image_folder: ImageFolder) -> None:
    image_folder.table["part"] = ["train"] * 13 + ["val"] * 5 + ["test"] * 6
    error = refusal(image_folder, split={"column": "part"})
    assert "line 15: group 'p06' is in split 'val', in " in error
    assert "line 14 it is in 'train'" in error


@pytest.mark.parametrize("value", ["2", "yes", "-1", "inf"])
def test_a_label_that_is_neither_zero_nor_one_is_refused(image_folder: ImageFolder, value: str) -> None:
    image_folder.table["x"] = ["1", "0"] * 12
    image_folder.table.loc[0, "x"] = value
    error = refusal(image_folder, task="multilabel", classes=["x"], label_column=["x"])
    assert f"line 2: label '{value}' (column 'x'); allowed: 0, 1 and empty" in error


def test_a_row_whose_labels_are_all_unknown_is_refused(image_folder: ImageFolder) -> None:
    image_folder.table["x"], image_folder.table["y"] = ["1", ""] * 12, ["0", "nan"] * 12
    error = refusal(image_folder, task="multilabel", classes=["x", "y"], label_column=None)
    assert "line 3: every label (x, y) is empty" in error


def test_a_class_without_images_is_refused(image_folder: ImageFolder) -> None:
    assert "class 'extreme' has no images" in refusal(image_folder, classes=["low", "middle", "high", "extreme"])


def test_a_missing_column_is_named_with_the_columns_there_are(image_folder: ImageFolder) -> None:
    error = refusal(image_folder, group_column="patient_id")
    assert "no column 'patient_id'; the columns are filename, grade, patient" in error


def test_at_most_ten_problems_are_listed_and_the_rest_counted(image_folder: ImageFolder) -> None:
    image_folder.table["grade"] = "fatal"
    error = refusal(image_folder)
    assert error.startswith("24 problems:")
    assert error.count("fatal") == 10
    assert "and 14 more" in error


def test_problems_of_different_kinds_are_found_at_once(image_folder: ImageFolder) -> None:
    image_folder.table.loc[0, "filename"] = "images/gone.png"
    image_folder.table.loc[9, "grade"] = "fatal"
    error = refusal(image_folder)
    assert "line 2: no image file" in error
    assert "line 11: label 'fatal'" in error


def test_a_row_that_is_cut_short_is_refused_with_its_line(image_folder: ImageFolder) -> None:
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    lines = path.read_text().splitlines()
    lines[6] = lines[6].rsplit(",", 1)[0]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 7: the group"):
        read_source(config)


@pytest.mark.parametrize("content", [b"", b"filename,grade,patient\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(image_folder: ImageFolder, content: bytes) -> None:
    config = image_folder.config()
    (image_folder.root / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.csv: (cannot be read as CSV|the table has no rows)"):
        read_source(config)


def test_a_missing_table_and_a_missing_folder_are_told_apart(image_folder: ImageFolder, tmp_path: Path) -> None:
    assert "other.csv: no such file. Set data.table" in refusal(image_folder, table="other.csv")
    assert f"data.path: no folder {tmp_path / 'nowhere'}" in refusal(image_folder, path=str(tmp_path / "nowhere"))


def test_images_in_grey_have_one_channel(image_folder: ImageFolder) -> None:
    image = read_source(image_folder.config(color="grey")).records[0].load()
    assert (image.shape, image.dtype) == ((16, 16, 1), np.uint8)
