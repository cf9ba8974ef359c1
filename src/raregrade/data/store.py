"""Decoded images on disk: .npy shards of one shape and type, written as a stream and read by memory map.

Nothing here knows about labels, splits or image formats.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from raregrade.errors import DataError

MAX_SHARD_ITEMS = 4096
MAX_SHARD_BYTES = 256 * 2**20

Array = npt.NDArray[Any]


def items_per_shard(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Items of ``shape`` in one shard: at most 4,096 and at most 256 MiB, at least one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return max(1, min(MAX_SHARD_ITEMS, MAX_SHARD_BYTES // size))


class ShardWriter:
    """Appends arrays of one ``shape`` and ``dtype`` to 00000.npy, 00001.npy … in ``folder``.

    The number of items must be known beforehand, since each shard's header comes first. Items go straight to
    the file, not through a memory map: a full disk is then an error and not a crash.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, num_items: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._shape, self._dtype = folder, shape, np.dtype(dtype)
        self._num_items, self._written = num_items, 0
        self._per_shard = items_per_shard(shape, dtype)
        self._file: IO[bytes] | None = None

    def append(self, item: Array) -> None:
        if item.shape != self._shape or item.dtype != self._dtype:
            raise ValueError(f"expected {self._shape} {self._dtype}, got {item.shape} {item.dtype}")
        if self._written % self._per_shard == 0:
            self._start_shard()
        assert self._file is not None
        self._file.write(np.ascontiguousarray(item).tobytes())
        self._written += 1

    def _start_shard(self) -> None:
        self._close_file()
        shard = self._written // self._per_shard
        length = min(self._per_shard, self._num_items - self._written)
        self._file = (self._folder / f"{shard:05d}.npy").open("wb")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (length, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close_file()
        if kind is None and self._written != self._num_items:
            raise ValueError(f"expected {self._num_items} items, got {self._written}")


class ShardReader:
    """The shards of a folder as one array [N, …], memory-mapped.

    Raises:
        DataError: no shard in the folder, a shard that is no .npy file or is cut short, or shards that differ in shape.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].npy"))
        if not paths:
            raise DataError(f"no shard (00000.npy …) in {folder}. Run `raregrade prepare` again.")
        self._shards = [_map_shard(path) for path in paths]
        first = self._shards[0]
        for path, shard in zip(paths, self._shards, strict=True):
            if shard.shape[1:] != first.shape[1:] or shard.dtype != first.dtype:
                raise DataError(
                    f"{path}: items are {shard.shape[1:]} {shard.dtype}, in {paths[0].name} {first.shape[1:]} "
                    f"{first.dtype}. Run `raregrade prepare` again."
                )
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self.item_shape: tuple[int, ...] = first.shape[1:]
        self.dtype = first.dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, rows: npt.ArrayLike | slice) -> Array:
        """Items ``rows`` in the order asked for, copied to memory. IndexError where a row is out of range."""
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} asked for, the store has 0 to {len(self) - 1}")
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][rows])
        items = np.empty((len(rows), *self.item_shape), dtype=self.dtype)
        shard_of = np.searchsorted(self._ends, rows, side="right")
        for i in np.unique(shard_of):
            here = shard_of == i
            items[here] = self._shards[i][rows[here] - (self._ends[i] - len(self._shards[i]))]
        return items


def check_replaceable(out: Path, marker: str) -> None:
    """Refuse to write to ``out`` if it is a file, or a folder of something else: one without the file ``marker``.

    Raises:
        DataError: ``out`` would be replaced and does not look like an earlier result of the same command.
    """
    if out.exists() and not (out / marker).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and has no {marker}: it would be replaced as a whole. Give another --out.")


def _map_shard(path: Path) -> Array:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise DataError(f"{path}: not a complete shard: {err}. Run `raregrade prepare` again.") from err
    assert isinstance(shard, np.ndarray)
    return shard


def keep_in_store(folder: Path, store: Path, content_hash: str) -> Path:
    """Move ``folder``, which lies in ``store``, to ``<store>/<content_hash>`` and return that path.

    Content that the store already holds in full is left alone, since others may be reading it.
    """
    kept = store / content_hash
    if kept.exists() and _file_sizes(kept) != _file_sizes(folder):
        shutil.rmtree(kept)  # damaged: its name promises this content
    try:
        folder.rename(kept)
    except OSError:
        if not kept.exists():
            raise
        shutil.rmtree(folder)
    return kept


def _file_sizes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
