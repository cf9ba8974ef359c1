"""Tables in a pipe and on a terminal, and the closing words of a comparison."""

from __future__ import annotations

import os
import sys
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


def test_a_table_on_a_terminal_is_drawn_and_takes_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        print_table(["image", "grade"], ROWS)
        terminal.flush()
        text = os.read(reader, 65536).decode()
    os.close(reader)
    assert "─" in text
    assert "[bold]mild" in text


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
