"""From raw images to a prepared dataset: read, deal the splits, decode once, write shards and manifest.

The folder appears complete or not at all, and no more than a few images are in memory at a time. How files and
tables are read is ``sources``', how groups are dealt is ``splits``', what the files hold is ``manifest``'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.atomic import atomic_folder
from raregrade.config import DataConfig
from raregrade.data.checks import hierarchy_problems, identical_images
from raregrade.data.manifest import (
    INFO_FILE,
    MANIFEST_FILE,
    MASK_ROWS_FILE,
    SCHEMA,
    PreparedDataset,
    content_hash,
    manifest_columns,
    read_info,
    read_manifest,
)
from raregrade.data.progress import track
from raregrade.data.sources import read_source
from raregrade.data.sources.base import RawDataset, Record, label_matrix, raise_problems
from raregrade.data.splits import SPLITS, Groups, assign_folds, assign_splits, deal_validation
from raregrade.data.store import ShardReader, ShardWriter, check_replaceable, keep_in_store
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

Array = npt.NDArray[Any]
Load = tuple[str, Callable[[], Array]]  # where the image is described, and what decodes it


def prepare_dataset(
    config: DataConfig, seed: int, out: Path, *, store: Path | None = None, previous: Path | None = None
) -> PreparedDataset:
    """Prepare the raw data that ``config`` names into folder ``out`` and open it.

    Args:
        seed: of the deal of groups to splits and folds.
        store: folder for the shards, which then lie in ``<store>/<content_hash>``; beside the manifest by default.
        previous: a prepared dataset whose groups keep their split; only groups that it does not have are dealt.

    Returns:
        The prepared dataset. ``info["warnings"]`` names what is odd but no reason to stop: identical images in
        different splits, a child label without its parent, no group column.

    Raises:
        ConfigError: keys that contradict the source.
        DataError: a missing or unreadable file, a wrong label, a group in two splits, an empty class …, with file
            and row; or ``out`` is a folder of something else. Nothing is written then.
    """
    out, store = Path(out), None if store is None else Path(store).absolute()
    check_replaceable(out, INFO_FILE)
    known = _known_splits(previous)
    raw = read_source(config)
    split, fold, more = _deal(raw.records, config, config.label_space(), seed, known)
    with atomic_folder(out) as folder:
        shards = folder
        if store is not None:
            store.mkdir(parents=True, exist_ok=True)
            shards = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=store))
        try:
            info = _write(raw, config, folder, shards, split=split, fold=fold)
            info["warnings"] = [*raw.warnings, *more, *info["warnings"]]
            if store is not None:
                kept = keep_in_store(shards, store, info["content_hash"])
                info |= {key: str(kept / key) for key in ("images", "masks") if info[key] is not None}
        finally:
            if store is not None:
                shutil.rmtree(shards, ignore_errors=True)
        # Last of all: a folder without dataset.json is not a dataset.
        (folder / INFO_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return PreparedDataset.open(out)


def _known_splits(previous: Path | None) -> dict[str, str]:
    """Split of each group of an earlier prepared dataset; its shards need not be there."""
    if previous is None:
        return {}
    read_info(Path(previous))
    manifest = read_manifest(Path(previous))
    return dict(zip(manifest["group_id"].astype(str), manifest["split"].astype(str), strict=True))


def _deal(
    records: Sequence[Record], config: DataConfig, space: LabelSpace, seed: int, known: dict[str, str]
) -> tuple[list[str], npt.NDArray[np.int64], list[str]]:
    """Split and fold of each record, and warnings: by the source's own split if it has one, else dealt."""
    groups = Groups.from_rows([r.group_id for r in records], label_matrix(records, space))
    if records[0].split is None:
        split, warnings = assign_splits(groups, config.split, space, seed, known), []
    else:
        own = {r.group_id: str(r.split) for r in records}
        split = [own[name] for name in groups.names]
        if "val" not in split:
            split = deal_validation(groups, config.split, space, seed, split=split, known=known)
        _check_still_there(groups.names, split, known)
        warnings = _check_own_split(groups, split, space)
    fold = assign_folds(groups, split, config.split.folds, seed)
    return [split[g] for g in groups.of_row], fold[groups.of_row], warnings


def _check_still_there(names: Sequence[str], split: Sequence[str], known: dict[str, str]) -> None:
    moved = [
        f"group {name!r} was in {known[name]} and is now in {now}"
        for name, now in zip(names, split, strict=True)
        if known.get(name, now) != now
    ]
    raise_problems(moved, "Groups keep the split of the previous dataset: mend the split column, or drop --previous.")


def _check_own_split(groups: Groups, split: Sequence[str], space: LabelSpace) -> list[str]:
    """Refuse a split without images and a class without training images; a class missing elsewhere is a warning."""
    of_group = np.array(split)
    empty = [s for s in SPLITS if not (of_group == s).any()]
    raise_problems(
        [f"no image is in split {s}" for s in empty], "The split column needs train and test; val is dealt if missing."
    )
    lacking = {
        s: [c for c, n in zip(space.classes, groups.counts[of_group == s].sum(axis=0), strict=True) if n == 0]
        for s in SPLITS
    }
    raise_problems(
        [f"class {c!r} has no images in split train" for c in lacking["train"]],
        "Change the split, or leave the class out of data.classes.",
    )
    return [f"class {c!r} has no images in split {s}" for s in SPLITS for c in lacking[s]]


def _write(
    raw: RawDataset,
    config: DataConfig,
    folder: Path,
    shards: Path,
    *,
    split: Sequence[str],
    fold: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Write shards and manifest; returns dataset.json."""
    space = config.label_space()
    channels = 1 if config.color == "grey" else 3
    shape = (config.image_size, config.image_size, channels)
    sha256 = _write_shards(
        shards / "images", [(r.where, r.load) for r in raw.records], shape, np.dtype(np.uint8), "decoding"
    )
    masked = [i for i, r in enumerate(raw.records) if r.load_mask is not None and split[i] == "test"]
    masks = _write_masks(shards / "masks", raw.records, masked, shape[:2]) if masked else None
    manifest = _manifest(raw.records, space, split, fold, sha256)
    manifest.to_parquet(folder / MANIFEST_FILE, index=False)
    return {
        "schema": SCHEMA,
        "label_space": space.to_json(),
        "image_size": config.image_size,
        "channels": channels,
        "source": config.source,
        "licence": config.licence,
        "content_hash": content_hash(manifest, space, config.image_size, channels, masks),
        "num_images": len(manifest),
        "counts": {s: int((manifest["split"] == s).sum()) for s in SPLITS},
        "images": "images",
        "masks": "masks" if masks is not None else None,
        "raw": {"path": config.path, **raw.provenance},
        "warnings": [*identical_images(manifest, space), *hierarchy_problems(manifest, space)],
    }


def _manifest(
    records: Sequence[Record],
    space: LabelSpace,
    split: Sequence[str],
    fold: npt.NDArray[np.int64],
    sha256: Sequence[str],
) -> pd.DataFrame:
    if space.task == "multilabel":
        matrix = label_matrix(records, space)
        labels: dict[str, Array] = {c: matrix[:, i] for i, c in enumerate(space.label_columns)}
    else:
        labels = {"label": np.array([r.label for r in records], dtype=np.int64)}
    columns = {
        "image_id": [r.image_id for r in records],
        "group_id": [r.group_id for r in records],
        "split": list(split),
        "fold": fold,
        **labels,
        "source_path": [r.source_path for r in records],
        "sha256": list(sha256),
    }
    return pd.DataFrame(columns)[manifest_columns(space)]


def _write_masks(
    folder: Path, records: Sequence[Record], rows: Sequence[int], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], ShardReader]:
    loads = [(records[i].where, load) for i in rows if (load := records[i].load_mask) is not None]
    _write_shards(folder, loads, shape, np.dtype(np.bool_), "decoding masks")
    numbers = np.array(rows, dtype=np.int64)
    np.save(folder / MASK_ROWS_FILE, numbers)
    return numbers, ShardReader(folder)


def _write_shards(
    folder: Path, loads: Sequence[Load], shape: tuple[int, ...], dtype: np.dtype[Any], description: str
) -> list[str]:
    """Decode in order into shards; sha256 (hex) of each item's bytes. All unreadable files are named at once."""
    digests, problems = [], []
    blank = np.zeros(shape, dtype=dtype)
    with ShardWriter(folder, shape, dtype, len(loads)) as writer:
        for item in track(_in_parallel(loads), len(loads), description):
            if isinstance(item, DataError):
                problems.append(str(item))
            writer.append(blank if isinstance(item, DataError) else item)
            digests.append("" if isinstance(item, DataError) else hashlib.sha256(item.tobytes()).hexdigest())
    raise_problems(problems, "Replace the files, or take their rows out of the table.")
    return digests


def _in_parallel(loads: Sequence[Load]) -> Iterator[Array | DataError]:
    """Results of ``loads`` in order, decoded by threads (Pillow releases the GIL), few of them ahead of the reader."""
    workers = max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    remaining = iter(loads)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Array | DataError]] = deque(
            pool.submit(_decode, load) for load in islice(remaining, 4 * workers)
        )
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(_decode, load) for load in islice(remaining, 1))
        finally:
            for future in ahead:
                future.cancel()


def _decode(load: Load) -> Array | DataError:
    where, decode = load
    try:
        return decode()
    except DataError as err:
        return DataError(f"{where}: {err}")
