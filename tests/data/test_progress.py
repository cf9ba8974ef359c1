"""Progress: every item passes through, a log gets lines, a terminal a bar."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from raregrade.data import progress
from raregrade.data.progress import track


def test_every_item_passes_in_order() -> None:
    assert list(track(iter(range(5)), 5, "working")) == [0, 1, 2, 3, 4]


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    list(track([1, 2], 2, "decoding"))
    assert capsys.readouterr().err == "decoding: 0 of 2\ndecoding: 1 of 2\n"


def test_short_work_is_silent_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    list(track([1, 2], 2, "decoding"))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar() -> None:
    main, terminal = pty.openpty()
    code = "from raregrade.data.progress import track\nfor _ in track(range(3), 3, 'decoding'): pass"
    environment = os.environ | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, env=environment)
    os.close(terminal)
    assert "decoding" in os.read(main, 65536).decode()
    os.close(main)
