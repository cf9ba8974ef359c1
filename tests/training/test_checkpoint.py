"""A checkpoint survives crashes and full disks: one that is whole is always there, and one run holds it at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import UserError
from raregrade.training.checkpoint import Checkpoint, numbers_of, open_checkpoint, run_key, state_name
from tests.disks import small_disk


def state_of(epoch: int, size: int = 10) -> dict[str, object]:
    return {"epoch": epoch, "weights": torch.full((size,), float(epoch)), "history": [{"lr": 0.1}], "none": None}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.save(state_of(4), wait=True)
    state = checkpoint.load()
    assert state is not None
    assert (state["epoch"], state["history"], state["none"]) == (4, [{"lr": 0.1}], None)
    assert torch.equal(state["weights"], torch.full((10,), 4.0))


def test_the_state_may_change_while_it_is_written(tmp_path: Path) -> None:
    checkpoint, weights = Checkpoint(tmp_path), torch.zeros(2_000_000)
    checkpoint.save({"weights": weights, "optimizer": {"state": [weights]}})
    weights += 1
    state = checkpoint.load()
    assert state is not None
    assert state["weights"].abs().sum() == 0
    assert state["optimizer"]["state"][0].abs().sum() == 0


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    for epoch in range(1, 5):
        checkpoint.save(state_of(epoch), wait=True)
    assert files(tmp_path) == ["state-000003.pt", "state-000004.pt"]
    again = Checkpoint(tmp_path)
    again.save(state_of(5), wait=True)
    assert files(tmp_path) == ["state-000004.pt", "state-000005.pt"]


@pytest.mark.parametrize("damage", ["empty", "short", "half", "one byte less", "one bit", "text"])
def test_where_the_newest_is_damaged_the_one_before_counts(tmp_path: Path, damage: str) -> None:
    checkpoint = Checkpoint(tmp_path)
    for epoch in (1, 2):
        checkpoint.save(state_of(epoch, 1000), wait=True)
    newest = tmp_path / state_name(2)
    whole = newest.read_bytes()
    flipped = bytes([whole[2000] ^ 1])
    newest.write_bytes(
        {
            "empty": b"",
            "short": whole[:10],
            "half": whole[: len(whole) // 2],
            "one byte less": whole[:-1],
            "one bit": whole[:2000] + flipped + whole[2001:],
            "text": b"not a checkpoint\n" * 100,
        }[damage]
    )
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 1
    (tmp_path / state_name(1)).unlink()
    assert checkpoint.load() is None


def test_a_checkpoint_runs_no_code_that_somebody_put_there(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from raregrade.training.state_file import write_state\n"
    code += "class Bad:\n    def __reduce__(self): return (os.system, (f'touch {sys.argv[1]}/ran',))\n"
    code += "with open(f'{sys.argv[1]}/state-000001.pt', 'wb') as file: write_state({'x': Bad()}, file)\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert Checkpoint(tmp_path).load() is None
    assert files(tmp_path) == ["state-000001.pt"]


_SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from raregrade.training.checkpoint import open_checkpoint
with open_checkpoint(Path(sys.argv[1]), "run") as checkpoint:
    weights, epoch = torch.zeros(40_000_000), 0
    while True:
        epoch += 1
        checkpoint.save({"epoch": epoch, "weights": weights.fill_(epoch)}, wait=True)
        print(epoch, flush=True)
"""


def sizes(folder: Path) -> list[int]:
    """Of what is being written; empty where it was finished just now."""
    with suppress(FileNotFoundError):
        return [path.stat().st_size for path in folder.glob(".state*")]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("written", [0, 20_000_000])
def test_a_process_that_is_killed_while_it_writes_leaves_one_that_is_whole(tmp_path: Path, written: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _SAVE_FOREVER, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline() != "3\n":
            pass
        while not any(size >= written for size in sizes(tmp_path / "run")):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        saved = max([3, *map(int, child.stdout.read().split())])
    assert len(list((tmp_path / "run").glob(".state*"))) == 1
    with open_checkpoint(tmp_path, "run") as checkpoint:
        state = checkpoint.load()
        assert state is not None
        assert state["epoch"] == saved
        assert (state["weights"] == saved).all()
        assert list((tmp_path / "run").glob(".state*")) == []


def test_on_a_full_disk_training_goes_on_with_a_warning_each_time_and_the_last_good_one(tmp_path: Path) -> None:
    said: list[str] = []
    with small_disk(tmp_path / "disk", "size=1m") as disk, open_checkpoint(disk, "run", said.append) as checkpoint:
        assert checkpoint.save(state_of(1), wait=True)
        assert not checkpoint.save(state_of(2, 1_000_000), wait=True)
        assert not checkpoint.save(state_of(3, 1_000_000), wait=True)
        assert len(said) == 2
        assert f"the checkpoint of 4.0 MB could not be kept in {disk / 'run'}: No space left on device" in said[0]
        assert "MB free" in checkpoint.problem
        state = checkpoint.load()
        assert state is not None
        assert state["epoch"] == 1
        assert files(disk / "run") == ["lock", "state-000001.pt"]
        assert checkpoint.save(state_of(4), wait=True)
        assert checkpoint.problem == ""


def test_where_two_have_no_room_one_is_kept(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=10m") as disk:
        checkpoint = Checkpoint(disk)
        for epoch in range(1, 5):  # of 4 MB each: two fit, a third beside them does not
            assert checkpoint.save(state_of(epoch, 1_000_000), wait=True), checkpoint.problem
        state = checkpoint.load()
        assert state is not None
        assert state["epoch"] == 4
        assert files(disk) == ["state-000003.pt", "state-000004.pt"]


def test_a_folder_that_takes_nothing_is_refused_before_training(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "ro,size=1m") as disk,
        pytest.raises(UserError, match="Read-only file system"),
        open_checkpoint(disk / "checkpoints", "run"),
    ):
        pytest.fail("opened")


def test_a_model_whose_checkpoints_have_no_room_is_refused_before_training(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=10m") as disk, open_checkpoint(disk, "run") as checkpoint:
        checkpoint.check_space(weights=1_000_000)
        with pytest.raises(UserError, match=r"it needs 16\.0 MB, and 10\.5 MB are free"):
            checkpoint.check_space(weights=2_000_000)


def slow_writes(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits for the event."""
    from raregrade.training import checkpoint as module

    gate, write = threading.Event(), module.write_state

    def wait_and_write(state: dict[str, object], file: object) -> None:
        assert gate.wait(30)
        write(state, file)

    monkeypatch.setattr(module, "write_state", wait_and_write)
    return gate


def test_training_goes_on_while_one_is_written_and_one_at_a_time_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = slow_writes(monkeypatch)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.save(state_of(1))
    assert checkpoint.busy
    assert not checkpoint.save(state_of(2))
    threading.Timer(0.2, gate.set).start()
    assert checkpoint.save(state_of(3), wait=True)
    assert not checkpoint.busy
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 3
    assert files(tmp_path) == ["state-000001.pt", "state-000002.pt"]


def test_leaving_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = slow_writes(monkeypatch)
    with open_checkpoint(tmp_path, "run") as checkpoint:
        checkpoint.save(state_of(1))
        threading.Timer(0.2, gate.set).start()
    assert "state-000001.pt" in files(tmp_path / "run")


def test_removed_checkpoints_are_gone_and_removing_again_is_harmless(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save(state_of(1))
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None
    assert files(tmp_path) == []


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint(None)
    assert not checkpoint.save(state_of(1), wait=True)
    assert checkpoint.load() is None
    assert not checkpoint.keeps


def test_a_second_process_of_the_same_run_keeps_no_checkpoint(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, "run") as first, open_checkpoint(tmp_path, "run") as second:
        assert first.keeps
        assert not second.keeps
    with open_checkpoint(tmp_path, "run") as again:
        assert again.keeps


def test_other_files_are_no_checkpoints() -> None:
    assert numbers_of(["state-000002.pt", "lock", "state-x.pt", ".state-000003.pt.k.tmp.pt", "state-1000000.pt"]) == [
        1_000_000,
        2,
    ]


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1, max_size=4))
def test_a_run_key_depends_on_every_value_and_not_on_their_order(identity: dict[str, object]) -> None:
    key = run_key(identity)
    assert key == run_key(dict(reversed(identity.items())))
    changed: Callable[[str], dict[str, object]] = lambda name: identity | {name: "another value"}  # noqa: E731
    assert all(run_key(changed(name)) != key for name in identity)
