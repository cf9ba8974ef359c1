"""Atomic writing: the final name holds the old content or the new, never half of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raregrade.atomic import WriteError, atomic_file, atomic_folder, check_writable, write_text
from tests.disks import small_disk


class _StoppedError(Exception):
    pass


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise _StoppedError


def test_a_file_appears_under_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("content")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "content"


def test_the_temporary_file_keeps_the_suffix_for_its_writer(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "table.parquet") as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == tmp_path


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(_StoppedError), atomic_file(path) as temporary:
        _write_half(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "b").touch()
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "κ ≥ 0.6\n")
    assert (tmp_path / "a.txt").read_bytes() == "κ ≥ 0.6\n".encode()


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "stale").touch()
    with atomic_folder(out) as folder:
        (folder / "fresh").touch()
        assert (out / "stale").exists()
    assert [p.name for p in out.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [out]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(_StoppedError), atomic_folder(out) as folder:
        _write_half(folder / "file")
    assert [p.name for p in out.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_process_leaves_no_folder_of_the_final_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from raregrade.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); print('writing', flush=True); time.sleep(60)\n"
    )
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert not out.exists()


# As an ordinary user's quota or `ulimit -f` does it: a write that goes beyond 100 kB fails.
_LIMITED = """
import resource, sys
from pathlib import Path
from raregrade.atomic import WriteError, atomic_file, atomic_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def plain(path):
    path.write_bytes(bytes(1_000_000))
def weights(path):
    import torch; from safetensors.torch import save_file
    save_file({"w": torch.zeros(250_000)}, path)
out = Path(sys.argv[1]) / "model"
try:
    with atomic_folder(out) as folder, atomic_file(folder / "weights") as temporary:
        globals()[sys.argv[2]](temporary)
except WriteError as err:
    print(err)
    sys.exit(err.exit_code)
"""


@pytest.mark.parametrize("writer", ["plain", pytest.param("weights", marks=pytest.mark.slow)])
def test_a_file_beyond_the_limit_is_one_message_and_leaves_nothing(tmp_path: Path, writer: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path), writer], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(f"cannot write {tmp_path / 'model'}: File too large (")
    assert "MB free" in done.stdout or "GB free" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file_and_says_how_much_room_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        write_text(disk / "a.txt", "old")
        with pytest.raises(WriteError, match=r"a\.txt: No space left on device \(0\.0 MB free, 1\.0 MB into it\)"):
            write_text(disk / "a.txt", "x" * 2_000_000)
        assert (disk / "a.txt").read_text() == "old"
        assert [path.name for path in disk.iterdir()] == ["a.txt"]


def test_what_cannot_be_written_later_is_found_out_now(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="Not a directory"):
        check_writable(tmp_path / "file" / "model")
    with pytest.raises(WriteError, match=r"it needs 10000000\.00 GB, and .* are free"):
        check_writable(tmp_path / "model", need=10**16)


@pytest.mark.parametrize(("options", "said"), [("ro", "Read-only file system"), ("size=4k", "No space left on device")])
def test_a_disk_that_takes_nothing_is_found_out_now(tmp_path: Path, options: str, said: str) -> None:
    with small_disk(tmp_path / "disk", options) as disk, pytest.raises(WriteError, match=said):
        check_writable(disk / "models" / "1")
