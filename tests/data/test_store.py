"""Shards: what is written is what is read, whatever the order asked for and the number of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raregrade.data import store
from raregrade.data.store import ShardReader, ShardWriter, check_replaceable, items_per_shard, keep_in_store
from raregrade.errors import DataError


@pytest.fixture
def items() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder_of_three_shards(items: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "MAX_SHARD_ITEMS", 4)
    with ShardWriter(tmp_path / "s", (4, 4, 3), np.uint8, len(items)) as writer:
        for item in items:
            writer.append(item)
    return tmp_path / "s"


def test_every_shard_is_a_plain_npy_file_of_its_own(folder_of_three_shards: Path, items: np.ndarray) -> None:
    names = sorted(p.name for p in folder_of_three_shards.iterdir())
    assert names == ["00000.npy", "00001.npy", "00002.npy"]
    assert np.array_equal(np.concatenate([np.load(folder_of_three_shards / n) for n in names]), items)


@pytest.mark.parametrize("rows", [[9, 0, 4, 4, 3], [], [2], slice(3, 9), slice(None), slice(8, 100)])
def test_rows_come_in_the_order_asked_for(folder_of_three_shards: Path, items: np.ndarray, rows: object) -> None:
    taken = ShardReader(folder_of_three_shards).take(rows)  # type: ignore[arg-type]
    expected = items[rows] if rows != [] else items[:0]  # type: ignore[call-overload]
    assert taken.dtype == np.uint8
    assert np.array_equal(taken, expected)


def test_what_is_taken_is_a_copy_that_does_not_hold_the_file(folder_of_three_shards: Path) -> None:
    taken = ShardReader(folder_of_three_shards).take([0])
    taken[:] = 0
    assert not np.array_equal(ShardReader(folder_of_three_shards).take([0]), taken)


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_out_of_range_is_refused(folder_of_three_shards: Path, row: int) -> None:
    with pytest.raises(IndexError, match="0 to 9"):
        ShardReader(folder_of_three_shards).take([row])


def test_a_shard_that_is_cut_short_is_refused_by_name(folder_of_three_shards: Path) -> None:
    path = folder_of_three_shards / "00001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"00001\.npy: not a complete shard"):
        ShardReader(folder_of_three_shards)


def test_shards_of_different_shape_are_refused(folder_of_three_shards: Path) -> None:
    np.save(folder_of_three_shards / "00002.npy", np.zeros((2, 5, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"00002\.npy.*\(5, 5, 3\).*\(4, 4, 3\)"):
        ShardReader(folder_of_three_shards)


def test_an_empty_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shard"):
        ShardReader(tmp_path)


def test_fewer_items_than_announced_are_an_error(tmp_path: Path, items: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 3 items, got 1"), ShardWriter(tmp_path, (4, 4, 3), np.uint8, 3) as w:
        w.append(items[0])


def test_an_item_of_another_shape_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"expected \(4, 4, 3\) uint8"),
        ShardWriter(tmp_path, (4, 4, 3), np.uint8, 1) as writer,
    ):
        writer.append(np.zeros((4, 4, 1), np.uint8))


def test_a_shard_holds_at_most_4096_items_and_256_mebibytes() -> None:
    assert items_per_shard((28, 28, 1), np.uint8) == 4096
    assert items_per_shard((1024, 1024, 3), np.uint8) == 85
    assert items_per_shard((40_000, 40_000), np.uint8) == 1


def test_content_that_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    for name, text in (("kept", "same"), ("new", "same")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.npy").write_text(text)
    before = (tmp_path / "kept" / "00000.npy").stat().st_ino
    assert keep_in_store(tmp_path / "new", tmp_path, "kept") == tmp_path / "kept"
    assert (tmp_path / "kept" / "00000.npy").stat().st_ino == before
    assert not (tmp_path / "new").exists()


def test_damaged_content_is_replaced(tmp_path: Path) -> None:
    for name, text in (("kept", "half"), ("new", "complete")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.npy").write_text(text)
    keep_in_store(tmp_path / "new", tmp_path, "kept")
    assert (tmp_path / "kept" / "00000.npy").read_text() == "complete"


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"has no dataset\.json.*another --out"):
        check_replaceable(tmp_path, "dataset.json")
    (tmp_path / "dataset.json").touch()
    check_replaceable(tmp_path, "dataset.json")
    check_replaceable(tmp_path / "missing", "dataset.json")
