"""Columns of patients that the split by group would tear apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade.data.checks import Finding
from raregrade.data.sources.grouping import ungrouped
from raregrade.tables import TextTable


def table(**columns: list[str]) -> TextTable:
    rows = list(zip(*columns.values(), strict=True))
    return TextTable(Path("raw/labels.csv"), tuple(columns), rows, tuple(range(2, 2 + len(rows))))


IMAGES = ["a.png", "b.png", "c.png", "d.png"]


def found(group: str | None = None, images: list[str] = IMAGES, **columns: list[str]) -> list[Finding]:
    return ungrouped(table(filename=images, **columns), group, images)


def test_a_patient_with_several_images_is_an_error_without_a_group_column() -> None:
    (finding,) = found(Patient=["p1", "p2", "p1", "p1"])
    assert finding.kind == "ungrouped"
    assert finding.text == (
        "data.group_column is not set, but the column 'Patient' of labels.csv looks like the patient: 'p1' has 3 "
        "images, which may lie in train and in test (so for 1 in all)"
    )


def test_patients_with_one_image_each_are_no_error() -> None:
    assert [f.kind for f in found(patient=["p1", "p2", "p3", "p4"])] == ["no_groups"]
    assert [f.kind for f in found(patient=["p1", "NA", "NA", ""])] == ["no_groups"]


def test_groups_smaller_than_patients_are_an_error() -> None:
    (finding,) = found("study", study=["s1", "s1", "s2", "s3"], patient_id=["1", "1", "1", "2"])
    assert finding.kind == "ungrouped"
    assert "data.group_column is study, but the column 'patient_id'" in finding.text
    assert "'1' has 2 values of study, which may lie in train and in test (so for 1 in all)" in finding.text


def test_groups_that_keep_patients_together_are_right() -> None:
    assert found("patient", study=["s1", "s1", "s2", "s3"], patient=["1", "1", "1", "2"]) == []
    assert found("site", site=["x", "x", "x", "y"], patient=["1", "1", "2", "3"]) == []


@pytest.mark.parametrize("column", ["lesion_id", "case", "study", "eye"])
def test_a_column_that_may_hold_patients_is_a_warning(column: str) -> None:
    (finding,) = found(**{column: ["1", "2", "1", "3"]})
    assert finding.kind == "no_groups"
    assert finding.text.endswith(f"(column '{column}' of labels.csv: '1' has 2 images)")


def test_two_eyes_of_many_images_are_no_groups() -> None:
    images = [f"{n}.png" for n in range(60)]
    (finding,) = found(images=images, eye=["left", "right"] * 30)
    assert finding.text.endswith("may lie in train and in test")


def test_patients_in_the_names_of_files_are_a_warning() -> None:
    (finding,) = found(images=["patient001/a.png", "patient001/b.png", "patient002/a.png", "patient003/a.png"])
    assert finding.text.endswith("(files are named after patients: 'patient001' has 2 images)")
