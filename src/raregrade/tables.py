"""Text tables (CSV) as spreadsheets and other programs write them, read so that no value can slip into another column.

One reader for tables of labels and of predictions. What the columns mean is their readers'.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raregrade.errors import DataError
from raregrade.names import normalised

if TYPE_CHECKING:
    import _csv

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_MAX_LISTED = 3
# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        path: the file.
        columns: names of the columns, unique; "" where the header has no name.
        rows: the cells as the file has them, one a column.
        lines: the line of the file on which each row begins, from 1.
        notes: what was guessed to read it, one sentence each.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"

    def column(self, name: str) -> list[str]:
        """The cells of a column, as they stand."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def records(self) -> Iterator[dict[str, str]]:
        """Each row as a dict of cells in composed Unicode, without blanks at their ends."""
        for row in self.rows:
            yield {name: normalised(cell) for name, cell in zip(self.columns, row, strict=True)}


def read_text_table(path: Path) -> TextTable:
    """Read ``path``: separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16, UTF-32 or Windows-1252.

    The separator is the one that divides the header most; a first line ``sep=;`` decides it. Names of the header are
    stripped and composed (NFC). Blank lines are left out. An empty field beyond the header's last name is dropped.

    Raises:
        DataError: the file cannot be read or decoded; it has no header; a column twice; a row with fewer fields than
            the header, or a filled one beyond it (with its line); a quote that is not closed.
        FileNotFoundError: no such file.
    """
    text, notes = _decoded(path)
    text, first, delimiter = _directive(text)
    delimiter = delimiter or _delimiter(text)
    records = _records(text, delimiter, path, first)
    header = next(records, None)
    if header is None:
        raise DataError(f"{path}: the file is empty. It needs a header and one row per image below it.")
    columns = _columns(header[1], path)
    lines, rows, wrong = [], [], []
    for line, fields in records:
        if any(field.strip() for field in fields[len(columns) :]):
            surplus = next(field for field in fields[len(columns) :] if field.strip())
            wrong.append(
                f"{path}, line {line}: {len(fields)} fields under {len(columns)} columns (surplus: {surplus!r})"
            )
        elif len(fields) < len(columns):
            wrong.append(f"{path}, line {line}: {len(fields)} fields under {len(columns)} columns")
        else:
            lines.append(line)
            rows.append(tuple(fields[: len(columns)]))
    if wrong:
        raise DataError(_wrong_width(wrong, delimiter))
    return TextTable(path, columns, rows, tuple(lines), notes)


def check_alike(columns: Sequence[str], wanted: Collection[str], where: str) -> None:
    """Refuse a table in which another column has the name of a ``wanted`` one but for its case.

    Which of the two is meant cannot be known; and where only the other one is there, it would be overlooked.
    """
    for name in wanted:
        alike = [c for c in columns if c != name and c not in wanted and c.casefold() == name.casefold()]
        if alike and name in columns:
            raise DataError(f"{where}: has the columns {name} and {alike[0]}, which differ only in case; keep one")
        if alike:
            raise DataError(f"{where}: has a column {alike[0]}, which is not read; rename it to {name}, or remove it")


def check_unique(columns: Sequence[str], where: str) -> None:
    """Refuse a header that names a column twice. Columns without a name are not compared."""
    doubles = sorted({c for c in columns if c and list(columns).count(c) > 1})
    if doubles:
        raise DataError(f"{where}: has the column {', '.join(doubles)} more than once; keep one")


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of the file, and what was guessed."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as err:
        raise DataError(f"{path}: cannot be read as CSV: {err}") from err
    if raw.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: cannot be read as CSV: it is an Excel workbook or a zip file. Export it as CSV.")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "")
    if not encoding and b"\0" in raw[:2]:
        encoding = "utf-16-be" if raw[0] == 0 else "utf-16-le"
    try:
        return _without_nul(raw.decode(encoding or "utf-8"), path), ()
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        name = encoding.upper() or "UTF-8"
        problem = f"{path}: cannot be read as CSV: line {line} is not {name} ({err.reason}). Save it as UTF-8."
        if encoding:
            raise DataError(problem) from err
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError as err:
        raise DataError(problem) from err
    note = f"{path.name} is not UTF-8 (line {line}): read as Windows-1252; save it as UTF-8 to be sure of its letters"
    return _without_nul(text, path), (note,)


def _without_nul(text: str, path: Path) -> str:
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path}: cannot be read as CSV: line {line} holds NUL characters. Save it as UTF-8 text.")
    return text


def _directive(text: str) -> tuple[str, int, str | None]:
    """Text without Excel's first line ``sep=;``, the number of its first line, and the separator it names."""
    head, _, rest = text.partition("\n")
    named = head.strip("\r").lower()
    if len(named) == 5 and named.startswith("sep="):
        return rest, 2, named[-1]
    return text, 1, None


def _delimiter(text: str) -> str:
    def parts(delimiter: str) -> int:
        try:
            return len(next((r for r in _reader(text, delimiter) if any(f.strip() for f in r)), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=parts)  # the first of equals: commas


def _reader(text: str, delimiter: str) -> _csv.Reader:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)


def _records(text: str, delimiter: str, path: Path, first: int) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every line that is not blank; a quoted field may span lines."""
    reader = _reader(text, delimiter)
    line = first
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line, fields
            line = first + reader.line_num
    except csv.Error as err:
        raise DataError(f"{path}: cannot be read as CSV: line {line}: {err}. Close its quotes.") from err


def _columns(header: Sequence[str], path: Path) -> tuple[str, ...]:
    names = [normalised(name) for name in header]
    while names and not names[-1]:
        names.pop()
    check_unique(names, str(path))
    return tuple(names)


def _wrong_width(wrong: Sequence[str], delimiter: str) -> str:
    shown = "\n  ".join(wrong[:_MAX_LISTED])
    more = f"\n  and {len(wrong) - _MAX_LISTED} more" if len(wrong) > _MAX_LISTED else ""
    message = wrong[0] if len(wrong) == 1 else f"{len(wrong)} rows do not fit the header:\n  {shown}{more}"
    return (
        f"{message}\nFields are separated by {DELIMITERS.get(delimiter, repr(delimiter))}: quote a field that holds "
        "one, write an empty field where a value is missing, and name every column (row names too)."
    )
