"""The dashboard ends when it is told to."""

from __future__ import annotations

import signal
from pathlib import Path

import optuna_dashboard
import pytest

from raregrade.config import StudyStorage
from raregrade.tuning.dashboard import serve


def test_sigterm_ends_the_server_also_while_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that raises would do nothing there: wsgiref swallows every exception of an answer."""
    seen = []
    monkeypatch.setattr(optuna_dashboard, "run_server", lambda *_, **__: seen.append(signal.getsignal(signal.SIGTERM)))
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        serve(StudyStorage(url=str(tmp_path / "studies.log")), host="127.0.0.1", port=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIG_DFL]
