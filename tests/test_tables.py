"""Text tables in the forms that spreadsheets and other programs write."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import DataError
from raregrade.tables import TextTable, check_alike, read_text_table


def table(tmp_path: Path, content: str | bytes) -> TextTable:
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_text_table(path)


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        table(tmp_path, content)
    return str(caught.value)


PLAIN = "name,grade\na.png,é\nb.png,2\n"
ROWS = [("a.png", "é"), ("b.png", "2")]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        "\n" + PLAIN + "\n,\n",
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("name,grade", " name , grade "),
        PLAIN.replace(".png,", ".png, "),
        '"name","grade"\n"a.png","é"\n"b.png","2"',
    ],
)
def test_one_table_in_many_forms_is_read_alike(tmp_path: Path, content: str | bytes) -> None:
    found = table(tmp_path, content)
    assert found.columns == ("name", "grade")
    assert found.rows == ROWS
    assert found.notes == ()


def test_windows_1252_is_read_with_a_note(tmp_path: Path) -> None:
    found = table(tmp_path, PLAIN.encode("cp1252"))
    assert found.rows == ROWS
    assert found.notes == (
        "t.csv is not UTF-8 (line 2): read as Windows-1252; save it as UTF-8 to be sure of its letters",
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name,grade\na,\x81\n", "line 2 is not UTF-8"),
        (b"\xff\xfen\x00a", "line 1 is not UTF-16"),
        (b"PK\x03\x04rest", "an Excel workbook or a zip file. Export it as CSV"),
        (b"name,grade\na\0,1\n", "line 2 holds NUL characters"),
        (b'name,grade\na,"1\nb,2\n', "line 2: unexpected end of data. Close its quotes"),
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, content: bytes, says: str) -> None:
    message = refusal(tmp_path, content)
    assert message.startswith(f"{tmp_path / 't.csv'}: ")
    assert says in message


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_text_table(tmp_path)


def test_empty_fields_beyond_the_header_are_dropped(tmp_path: Path) -> None:
    assert table(tmp_path, "a,b\n1,2,\n3,4,,\n5,6\n").rows == [("1", "2"), ("3", "4"), ("5", "6")]
    assert table(tmp_path, "a,b,\n1,2,\n3,4\n").columns == ("a", "b")


def test_a_filled_field_beyond_the_header_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "t.csv, line 3: 3 fields under 2 columns (surplus: '5')" in refusal(tmp_path, "a,b\n1,2\n3,4,5\n")
    # The form of R's write.table: row names without a name in the header.
    assert "line 2: 3 fields under 2 columns (surplus: 'x')" in refusal(tmp_path, "a,b\n1,p.png,x\n")


def test_a_row_with_too_few_fields_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "t.csv, line 4: 1 fields under 2 columns" in refusal(tmp_path, "a,b\n1,2\n\n3\n")


def test_of_many_wrong_rows_three_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a,b\n" + "1\n" * 5)
    assert message.startswith("5 rows do not fit the header:\n")
    assert message.count("fields under") == 3
    assert "and 2 more" in message


def test_the_separator_that_was_found_is_named_where_rows_do_not_fit(tmp_path: Path) -> None:
    assert "Fields are separated by semicolons" in refusal(tmp_path, "a;b\n1\n")


@pytest.mark.parametrize("header", ["a,b,a", "a,b, a", "e\u0301,b,é"])
def test_a_column_twice_is_refused(tmp_path: Path, header: str) -> None:
    assert "more than once; keep one" in refusal(tmp_path, f"{header}\n1,2,3\n")


def test_columns_without_a_name_are_not_columns_twice(tmp_path: Path) -> None:
    assert table(tmp_path, ",a,,b\n0,1,,2\n").columns == ("", "a", "", "b")


def test_line_numbers_survive_blank_lines_and_breaks_in_quotes(tmp_path: Path) -> None:
    found = table(tmp_path, 'sep=,\na,b\n\n1,"x\ny"\n\n2,3\n')
    assert found.lines == (4, 7)
    assert found.where(1) == f"{tmp_path / 't.csv'}, line 7"
    assert found.column("b") == ["x\ny", "3"]


def test_records_are_normalised_and_columns_are_not(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b\nx ,e\u0301\n")
    assert list(found.records()) == [{"a": "x", "b": "é"}]
    assert found.column("a") == ["x "]


def test_a_semicolon_in_a_cell_does_not_make_the_separator(tmp_path: Path) -> None:
    assert table(tmp_path, "a,b\n1;2;3,4\n").rows == [("1;2;3", "4")]


def test_only_another_case_of_a_wanted_column_is_refused() -> None:
    check_alike(["grade", "Sex", "sex"], ["grade"], "t.csv")
    check_alike(["prob_A", "prob_a"], ["prob_A", "prob_a"], "t.csv")
    with pytest.raises(DataError, match="has the columns grade and Grade, which differ only in case"):
        check_alike(["grade", "Grade"], ["grade"], "t.csv")
    with pytest.raises(DataError, match="has a column Split, which is not read; rename it to split"):
        check_alike(["grade", "Split"], ["grade", "split"], "t.csv")


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C"], include_characters='\n,;"| '), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), max_size=5))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("first", "second"), *rows])
    path = tmp_path_factory.mktemp("cells") / "t.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert read_text_table(path).rows == [row for row in rows if any(cell.strip() for cell in row)]
