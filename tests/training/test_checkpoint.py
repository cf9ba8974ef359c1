"""A checkpoint survives crashes: it is whole or it is not there, and one run holds it at a time."""

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.training.checkpoint import Checkpoint, open_checkpoint, run_key


def test_what_was_saved_is_loaded_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"weights": torch.arange(3), "epoch": 4})
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 4
    assert torch.equal(state["weights"], torch.arange(3))


def test_a_torn_file_counts_as_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"weights": torch.arange(1000)})
    whole = (tmp_path / "state.pt").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "state.pt").write_bytes(whole[:length])
        assert checkpoint.load() is None, length


def test_a_removed_checkpoint_is_gone_and_removing_again_is_harmless(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"epoch": 1})
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint(None)
    checkpoint.save({"epoch": 1})
    assert checkpoint.load() is None


def test_a_second_process_of_the_same_run_keeps_no_checkpoint(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, "run") as first, open_checkpoint(tmp_path, "run") as second:
        assert first.folder is not None
        assert second.folder is None
    with open_checkpoint(tmp_path, "run") as again:
        assert again.folder is not None


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1, max_size=4))
def test_a_run_key_depends_on_every_value_and_not_on_their_order(identity: dict[str, object]) -> None:
    key = run_key(identity)
    assert key == run_key(dict(reversed(identity.items())))
    for name in identity:
        assert key != run_key({**identity, name: "another value"})
