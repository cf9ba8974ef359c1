"""Tables in a pipe and on a terminal, and the closing words of a comparison."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from raregrade.cli.printing import print_next_steps, print_registration, print_table

ROWS = [["a.png", "[bold]mild"], ["long-name.png", "severe"]]


def test_a_table_in_a_pipe_is_aligned_text_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["image", "grade"], ROWS)
    assert capsys.readouterr().out == "image          grade\na.png          [bold]mild\nlong-name.png  severe\n"


def test_a_table_without_rows_prints_its_heads(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["image", "grade"], [])
    assert capsys.readouterr().out == "image  grade\n"


def plain(text: str) -> str:
    """What a person sees of ``text``: no colours, no carriage returns."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "")


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``on_a_terminal(columns, rows, width)``: what a terminal of that width is sent."""

    def drawn(columns: list[str], rows: list[list[str]], width: int = 80) -> str:
        reader, writer = os.openpty()
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(width))
        with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", terminal)
            print_table(columns, rows)
        parts = []
        with os.fdopen(reader, "rb", buffering=0) as screen, suppress(OSError):  # Linux ends with an error
            while part := screen.read(65536):
                parts.append(part)
        return b"".join(parts).decode()

    return drawn


def test_a_table_on_a_terminal_is_drawn_and_takes_brackets_as_they_are(on_a_terminal: Callable[..., str]) -> None:
    text = on_a_terminal(["image", "grade"], ROWS)
    assert "─" in text
    assert "[bold]mild" in text


def test_a_terminal_gets_colour_unless_no_color_is_set(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;36m" in on_a_terminal(["image", "grade"], ROWS)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "36m" not in on_a_terminal(["image", "grade"], ROWS)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_fits_the_terminal_and_names_the_columns_that_it_leaves_out(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    columns = ["name", "loss", *(f"test_metric_{i}" for i in range(8))]
    text = on_a_terminal(columns, [["severity", "cdw_ce", *["0.1234"] * 8]], width)
    table, _, note = plain(text).partition("Not shown, for want of width: ")
    assert all(len(line.rstrip()) <= width for line in table.splitlines())
    left_out = [column for column in columns if column not in table]
    assert bool(left_out) == (width < 200)
    assert note.partition(". ")[0] == ", ".join(left_out)
    assert {"severity", "cdw_ce"} <= set(table.split())


def test_long_sentences_wrap_before_a_column_is_left_out(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = on_a_terminal(["preset", "what it is"], [["short", "few words " * 20]], 60)
    assert "Not shown" not in text
    assert max(len(line.rstrip()) for line in plain(text).splitlines()) <= 60


RESULT = {
    "name": "severity",
    "loss": "ce",
    "seed": 1,
    "reasons": ["ce never predicts severe", "val_qwk 0.3 < 0.4"],
    "remarks": ["val_mae 0.2 < 0.4"],
}


def test_a_registration_names_the_version_and_what_held(capsys: pytest.CaptureFixture[str]) -> None:
    print_registration({**RESULT, "registered": True, "version": "3", "reasons": []})
    assert capsys.readouterr().out == "registered: severity version 3 (ce, seed 1)\n  val_mae 0.2 < 0.4\n"


def test_a_refusal_prints_what_refused_in_order_and_no_rule_that_held(capsys: pytest.CaptureFixture[str]) -> None:
    print_registration({**RESULT, "registered": False, "version": None})
    out = capsys.readouterr().out
    assert out == "not registered: ce, seed 1\n  ce never predicts severe\n  val_qwk 0.3 < 0.4\n"


def test_the_next_steps_promote_the_version_and_grade_an_image_that_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "images" / name).touch()
    print_next_steps({"registered": True, "name": "severity", "version": "3"}, str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Next, try:"
    assert len(lines) == 2 + 3
    assert " ui  #" in lines[2]
    assert "promote severity 3 --to champion" in lines[3]
    assert f"predict --model models:/severity/3 {tmp_path / 'images' / 'a.png'}" in lines[4]


def test_the_next_steps_after_a_refusal_do_not_promote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_next_steps({"registered": False, "name": "severity", "version": None}, str(tmp_path))
    out = capsys.readouterr().out
    assert "promote" not in out
    assert len(out.splitlines()) == 2 + 3
