"""Storages: what a killed process leaves behind, and addresses that do not work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from raregrade.config import StudyStorage
from raregrade.errors import UserError
from raregrade.tuning.storage import open_storage
from raregrade.tuning.study import counts, open_study

from .conftest import MakePlan

HOLDS_THE_JOURNAL = """
import sys, time
from pathlib import Path
from raregrade.tuning.storage import _JournalLock
lock = _JournalLock(Path(sys.argv[1]))
lock.acquire()
with open(sys.argv[1], "ab") as journal:
    journal.write(b'{"op_code": 4, "worker')
print("held", flush=True)
time.sleep(600)
"""


def test_a_process_killed_while_it_wrote_blocks_nobody_and_spoils_nothing(plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "studies"
    small = plan().search
    open_study(open_storage(StudyStorage(url=str(path))), small)
    process = subprocess.Popen([sys.executable, "-c", HOLDS_THE_JOURNAL, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    study = open_study(open_storage(StudyStorage(url=str(path))), small)
    study.set_user_attr("written", "after")
    assert time.monotonic() - started < 10
    again = optuna.load_study(study_name=small.name, storage=open_storage(StudyStorage(url=str(path))).storage)
    assert again.user_attrs["written"] == "after"
    assert counts(again).waiting == 4


def test_a_relative_journal_is_the_same_file_from_every_folder(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shared = open_storage(StudyStorage(url="here/studies.log"))
    monkeypatch.chdir("/")
    open_study(shared, plan().search)
    assert (tmp_path / "here" / "studies.log").stat().st_size > 0


def test_an_unknown_kind_of_storage_is_refused() -> None:
    with pytest.raises(UserError, match=r"tune\.storage: mysql:// is not known; allowed: a file, postgresql://"):
        open_storage(StudyStorage(url="mysql://somewhere/studies"))


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    with pytest.raises(UserError, match=r"notes\.txt is not a journal of Optuna"):
        open_storage(StudyStorage(url=str(tmp_path / "notes.txt")))
    assert (tmp_path / "notes.txt").read_text() == "hello\nworld\n"


def test_a_journal_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/studies"):
        open_storage(StudyStorage(url=str(tmp_path / "file" / "studies")))


def test_a_database_that_does_not_answer_is_one_error_without_its_password() -> None:
    with pytest.raises(UserError) as caught:
        open_storage(StudyStorage(url="postgresql://me:secret-word@127.0.0.1:1/studies"))
    message = str(caught.value)
    assert "postgresql://me:***@127.0.0.1:1/studies cannot be used" in message
    assert "refused" in message
    assert "secret-word" not in message


def test_a_worker_that_is_killed_is_seen_to_be_dead_at_once(plan: MakePlan, tmp_path: Path) -> None:
    """Its lock is the kernel's: no time has to pass."""
    code = """
import sys, time
from raregrade.config import StudyStorage
from raregrade.tuning.storage import open_storage
with open_storage(StudyStorage(url=sys.argv[1])).alive("killed"):
    print("alive", flush=True)
    time.sleep(600)
"""
    url = str(tmp_path / "studies")
    shared = open_storage(StudyStorage(url=url))
    study = open_study(shared, plan().search)
    trial = study.ask()
    trial.set_user_attr("worker", "killed")
    process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"alive\n"
    assert shared.dead_trials(study) == []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert shared.dead_trials(study) == [trial._trial_id]
