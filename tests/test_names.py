"""Class names, ids and gaps as people and programs write them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.names import (
    MISSING,
    ClassNames,
    is_missing,
    normalised,
    number,
    outsized_id,
    patient_like,
    perhaps_patient_like,
    suspicious_ids,
    unit_of,
)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize(
    "text", ["é", unicodedata.normalize("NFD", "é"), " é\t", "\ufeffé", "é\u200b", "\u00a0é", "\ufeff \u200b é \ufeff "]
)
def test_forms_of_one_name_are_one(text: str) -> None:
    assert normalised(text) == "é"


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "NA", "na", "N/A", "n/a", "None", "NONE", "null", "NULL", "<NA>", "NaN", "NaT", "#N/A", "-", "--",
        "?", ".", "unknown", "\\N", "\ufeff",
    ],
)  # fmt: skip
def test_spellings_of_missing_are_missing(text: str) -> None:
    assert is_missing(text)
    assert is_missing(f" {text} ")


@pytest.mark.parametrize("text", ["0", "-1", "nano", "P-", "Nadia", "none of these", "unknown 3", "Ø"])
def test_names_are_not_missing(text: str) -> None:
    assert not is_missing(text)


def test_the_spellings_of_missing_are_kept_in_lower_case() -> None:
    assert {text.lower() for text in MISSING} == MISSING


@pytest.mark.parametrize("text", ["3", "3.0", " 3 ", "03", "+3", "3.", "3e0", "300e-2"])
def test_spellings_of_a_number_are_the_number(text: str) -> None:
    assert number(text) == 3
    assert ClassNames(("1", "2", "3", "4")).find(text) == 2
    assert ClassNames(("1.0", "2.0", "3.0")).find(text) == 2


@pytest.mark.parametrize("text", ["", "three", "3,0", "1_0", "nan", "inf", "0x3", "3 0", "３", "3e9999"])
def test_other_texts_are_no_number(text: str) -> None:
    assert number(text) is None
    assert ClassNames(("1", "2", "3", "10")).find(text) is None


def test_numbers_of_many_digits_are_told_apart() -> None:
    classes = ClassNames(("123456789012345678901", "123456789012345678902"))
    assert [classes.find(f"12345678901234567890{last}.0") for last in (1, 2, 3)] == [0, 1, None]


@pytest.mark.parametrize(
    ("classes", "text", "found"),
    [
        (("0", "1"), "True", 1),
        (("0", "1"), "FALSE", 0),
        (("True", "False"), "True", 0),
        (("True", "False"), "1", None),
        (("benign", "malignant"), "1", None),
        (("None", "mild"), "None", 0),
        (("low", "high"), "Low", None),
    ],
)
def test_a_class_is_found_by_its_name_alone(classes: tuple[str, ...], text: str, found: int | None) -> None:
    assert ClassNames(classes).find(text) == found


@pytest.mark.parametrize(("classes", "numbers"), [(("a", "b"), False), (("a", "2"), True), (("1.5", "2.5"), True)])
def test_one_class_called_by_a_number_makes_numbers_names(classes: tuple[str, ...], numbers: bool) -> None:
    assert ClassNames(classes).are_numbers is numbers


def test_ids_that_look_alike_are_named_together() -> None:
    ids = ["3", "3.0", "003", "3", "P1", "p1", "A 7", "a7", "30", "0", "P01"]
    assert suspicious_ids(ids, "patient") == [
        "patient ids that differ only in case, blanks or the spelling of a number: "
        "'003', '3', '3.0'; 'A 7', 'a7'; 'P1', 'p1'"
    ]


@given(st.lists(st.integers(0, 10**6).map(str)))
def test_plain_numbers_are_not_alike(ids: list[str]) -> None:
    assert suspicious_ids(ids, "patient") == []


def test_of_many_alike_ids_five_are_shown_and_the_rest_counted() -> None:
    ids = [form.format(n) for n in range(8) for form in ("{}", "{}.0")]
    (text,) = suspicious_ids(ids, "patient")
    assert text.endswith("'4', '4.0'; and 3 more")


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["999"] * 14 + [f"P{n // 2}" for n in range(26)], True),
        (["999"] * 9 + [f"P{n}" for n in range(20)], False),
        (["999"] * 14 + ["P1"] * 4, False),
        (["999"] * 14 + [f"P{n}" for n in range(80)], False),
        (["999"] * 14, False),
    ],
)
def test_an_id_with_far_more_images_than_any_other_is_named(ids: list[str], named: bool) -> None:
    expected = f"patient '999' has 14 of {len(ids)} images, the next at most 2: does it stand for a missing id?"
    assert outsized_id(ids, "patient") == ([expected] if named else [])


def test_columns_of_patients_are_known_by_their_names() -> None:
    columns = ["patient", "Patient ID", "PatientID", "patient_id", "patientid", "subject", "Subject No", "MRN", "PID"]
    assert patient_like([*columns, "Patient Age", "Patient Gender", "patience", "image", "part", "path", ""]) == columns
    assert perhaps_patient_like(["lesion_id", "Case", "study", "eye", "age", "casette"]) == [
        "lesion_id", "Case", "study", "eye"
    ]  # fmt: skip


def test_groups_are_images_only_where_every_image_is_its_own() -> None:
    assert unit_of(["a", "b"], ["a", "b"]) == "images"
    assert unit_of(["a", "b"], ["a", "a"]) == "patients"
