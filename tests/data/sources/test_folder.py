"""A folder with a table: what is read, and what is refused with file and line."""

from __future__ import annotations

import math
import unicodedata
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
    assert raw.findings == []


def test_without_a_group_column_a_finding_says_images_are_groups(image_folder: ImageFolder) -> None:
    image_folder.table = image_folder.table.drop(columns="patient")
    raw = read_source(image_folder.config(group_column=None))
    assert len({r.group_id for r in raw.records}) == 24
    assert [f.kind for f in raw.findings] == ["no_groups"]
    assert "data.group_column is not set" in raw.findings[0].text


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
    with pytest.raises(DataError, match="line 7: 2 fields under 3 columns"):
        read_source(config)


@pytest.mark.parametrize("content", [b"", b"filename,grade,patient\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(image_folder: ImageFolder, content: bytes) -> None:
    config = image_folder.config()
    (image_folder.root / "labels.csv").write_bytes(content)
    with pytest.raises(
        DataError, match=r"labels\.csv: (cannot be read as CSV|the file is empty|the table has no rows)"
    ):
        read_source(config)


def test_a_missing_table_and_a_missing_folder_are_told_apart(image_folder: ImageFolder, tmp_path: Path) -> None:
    assert "other.csv: no such file. Set data.table" in refusal(image_folder, table="other.csv")
    assert f"data.path: no folder {tmp_path / 'nowhere'}" in refusal(image_folder, path=str(tmp_path / "nowhere"))


def test_images_in_grey_have_one_channel(image_folder: ImageFolder) -> None:
    image = read_source(image_folder.config(color="grey")).records[0].load()
    assert (image.shape, image.dtype) == ((16, 16, 1), np.uint8)


@pytest.mark.parametrize(
    "gap", ["NA", "N/A", "n/a", "None", "null", "<NA>", "NaN", "NaT", "#N/A", "-", "--", "?", "unknown"]
)
def test_every_spelling_of_a_missing_patient_is_refused(image_folder: ImageFolder, gap: str) -> None:
    image_folder.table.loc[[3, 17], "patient"] = gap
    error = refusal(image_folder)
    assert f"line 5: the group (column 'patient') is empty: '{gap}' stands for a missing value" in error
    assert f"line 19: the group (column 'patient') is empty: '{gap}'" in error


def test_a_missing_image_name_is_refused(image_folder: ImageFolder) -> None:
    image_folder.table.loc[3, "filename"] = "NA"
    assert "line 5: column 'filename' is empty: 'NA' stands for a missing value" in refusal(image_folder)


def test_blanks_in_the_header_and_around_cells_do_no_harm(image_folder: ImageFolder) -> None:
    expected = [(r.image_id, r.group_id, r.label) for r in read_source(image_folder.config()).records]
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    path.write_text(path.read_text().replace(",", " ,  "))
    assert [(r.image_id, r.group_id, r.label) for r in read_source(config).records] == expected


def test_a_comma_at_the_end_of_every_row_moves_no_column(image_folder: ImageFolder) -> None:
    expected = [(r.image_id, r.group_id, r.label) for r in read_source(image_folder.config()).records]
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row}," for row in rows)]))
    assert [(r.image_id, r.group_id, r.label) for r in read_source(config).records] == expected


def test_a_label_column_that_is_there_twice_is_refused(image_folder: ImageFolder) -> None:
    image_folder.table.insert(3, "other", "low")
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    path.write_text(path.read_text().replace("other", "grade", 1))
    with pytest.raises(DataError, match="has the column grade more than once"):
        read_source(config)


def test_a_column_that_differs_from_the_label_column_in_case_is_refused(image_folder: ImageFolder) -> None:
    image_folder.table["Grade"] = "low"
    assert "has the columns grade and Grade, which differ only in case" in refusal(image_folder)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_compared_in_composed_unicode(image_folder: ImageFolder, form: str) -> None:
    name = "images/œil é.png"
    (image_folder.root / "images/00_0.png").rename(image_folder.root / unicodedata.normalize(form, name))
    image_folder.table = image_folder.table.replace({"grade": {"low": decomposed("léger")}})
    image_folder.table.loc[0, "filename"] = decomposed(name)
    image_folder.table.loc[0, "patient"] = decomposed("à")
    image_folder.table.loc[1, "patient"] = "à"
    records = read_source(image_folder.config(classes=["léger", "middle", "high"])).records
    assert (records[0].label, records[0].image_id, records[0].load().shape) == (0, name, (16, 16, 3))
    assert records[0].group_id == records[1].group_id == "à"


def test_class_names_of_the_parameters_may_be_decomposed(image_folder: ImageFolder) -> None:
    image_folder.table = image_folder.table.replace({"grade": {"low": "léger"}})
    config = image_folder.config(classes=[decomposed("léger"), "middle", "high"])
    assert config.classes[0] == config.label_space().classes[0] == "léger"
    assert read_source(config).records[0].label == 0


def test_windows_separators_in_image_names_are_accepted(image_folder: ImageFolder) -> None:
    expected = [r.image_id for r in read_source(image_folder.config()).records]
    image_folder.table["filename"] = image_folder.table["filename"].str.replace("/", "\\")
    assert image_folder.table["filename"][0] == "images\\00_0.png"
    assert [r.image_id for r in read_source(image_folder.config()).records] == expected


def test_an_image_named_with_either_separator_is_named_twice(image_folder: ImageFolder) -> None:
    image_folder.table.loc[3, "filename"] = "images\\00_0.png"
    assert "line 5: 'images/00_0.png' is already named in line 2" in refusal(image_folder)


def test_ids_without_suffix_are_found_in_a_folder_beside_the_table(image_folder: ImageFolder) -> None:
    image_folder.table["filename"] = [name[7:-4] for name in image_folder.table["filename"]]
    records = read_source(image_folder.config()).records
    assert (records[2].image_id, records[2].source_path) == ("01_0", "images/01_0.png")
    by_keys = read_source(image_folder.config(image_folder="images", image_suffix=".png")).records
    assert [(r.image_id, r.source_path) for r in by_keys] == [(r.image_id, r.source_path) for r in records]


def test_a_patient_with_and_without_blanks_is_one_and_is_named(image_folder: ImageFolder) -> None:
    config = image_folder.config()
    path = image_folder.root / "labels.csv"
    lines = path.read_text().splitlines()
    lines[-1] += "  "  # p11 with blanks behind it
    path.write_text("\n".join(lines))
    raw = read_source(config)
    assert raw.records[-1].group_id == "p11"
    assert [f.text for f in raw.findings] == [
        "patient ids that differ only in case, blanks or the spelling of a number: 'p11', 'p11  ' "
        "(blanks at the ends are left out)"
    ]


def test_text_that_is_not_utf8_is_read_and_named(image_folder: ImageFolder) -> None:
    image_folder.table = image_folder.table.replace({"grade": {"low": "léger"}})
    config = image_folder.config(classes=["léger", "middle", "high"])
    path = image_folder.root / "labels.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    raw = read_source(config)
    assert raw.records[0].label == 0
    assert [f.kind for f in raw.findings] == ["encoding"]
    assert raw.findings[0].text.startswith("labels.csv is not UTF-8 (line 2): read as Windows-1252")
