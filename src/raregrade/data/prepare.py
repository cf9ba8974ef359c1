"""From raw images to a prepared dataset: read, decode once, deal the splits, write shards and manifest.

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
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.atomic import atomic_folder
from raregrade.config import DataConfig
from raregrade.data.checks import findings, refuse, warnings_among
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
from raregrade.data.splits import SPLITS, Groups, assign_folds, assign_splits, deal_validation, join_alike
from raregrade.data.store import ShardReader, ShardWriter, check_replaceable, keep_in_store
from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.names import unit_of

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
        The prepared dataset. ``info["warnings"]`` names what is odd but no reason to stop: a child label without its
        parent, no group column, ids that look alike, a class that the source's own split leaves out of val or test,
        and what ``config.waive`` accepts (see ``checks``). Groups that share an identical image are dealt as one.

    Raises:
        ConfigError: keys that contradict the source.
        DataError: a missing or unreadable file, a wrong label, a group in two splits, an empty class …, with file
            and row; a finding of ``WAIVABLE`` that is not waived; or ``out`` is a folder of something else. Nothing is
            written then.
    """
    out, store = Path(out), None if store is None else Path(store).absolute()
    check_replaceable(out, INFO_FILE)
    known = _known_splits(previous)
    raw = read_source(config)
    refuse(raw.findings, config.waive)
    deal = partial(_deal, raw.records, config, config.label_space(), seed, known)
    dealt = deal()  # before the images are decoded, so that what cannot be dealt is said at once
    with atomic_folder(out) as folder:
        shards = folder
        if store is not None:
            store.mkdir(parents=True, exist_ok=True)
            shards = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=store))
        try:
            sha256 = _write_images(raw, config, shards)
            if _shared([r.group_id for r in raw.records], sha256):
                dealt = deal(sha256=sha256)
            info = _write(raw, config, folder, shards, dealt=dealt, sha256=sha256)
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


class _Dealt(NamedTuple):
    """Split and fold of each record."""

    split: list[str]
    fold: npt.NDArray[np.int64]


def _deal(
    records: Sequence[Record],
    config: DataConfig,
    space: LabelSpace,
    seed: int,
    known: dict[str, str],
    *,
    sha256: Sequence[str] | None = None,
) -> _Dealt:
    """By the source's own split if it has one, else dealt; groups that share an image (``sha256``) as one group."""
    ids, labels = [r.group_id for r in records], label_matrix(records, space)
    content: Sequence[str | None] = [None] * len(records) if sha256 is None else sha256
    own = {r.group_id: r.split for r in records if r.split is not None}
    # A source's own split is kept, so that copies of an image in different splits of it cannot be joined.
    alike = [None if c is None else f"{own.get(i)} {c}" for i, c in zip(ids, content, strict=True)]
    joined = join_alike(ids, alike, known)
    home = {j: known[i] for i, j in zip(ids, joined, strict=True) if i in known}
    try:
        groups = Groups.from_rows(joined, labels)
        if not own:
            split = assign_splits(groups, config.split, space, seed, home)
        else:
            of_joined = {j: own[i] for i, j in zip(ids, joined, strict=True)}
            split = [of_joined[name] for name in groups.names]
            if "val" not in split:
                split = deal_validation(groups, config.split, space, seed, split=split, known=home)
            _check_own_split(groups, split, space)
        of_row = [split[g] for g in groups.of_row]
        _check_still_there(ids, of_row, known)
        # Folds join copies wherever they lie outside test, since each fold is trained on by the others.
        inside = [c if s != "test" else None for c, s in zip(content, of_row, strict=True)]
        folded = Groups.from_rows(join_alike(joined, inside), labels)
        of_folded = dict(zip(folded.of_row.tolist(), of_row, strict=True))
        fold = assign_folds(folded, [of_folded[g] for g in range(len(folded.names))], config.split.folds, seed)
    except DataError as err:
        if len(set(joined)) == len(set(ids)):
            raise
        raise DataError(f"{err} Patients that share an identical image are kept together and count as one.") from err
    return _Dealt(of_row, fold[folded.of_row])


def _shared(group_ids: Sequence[str], sha256: Sequence[str]) -> bool:
    """Whether an image lies in more than one group."""
    first: dict[str, str] = {}
    return any(first.setdefault(digest, name) != name for name, digest in zip(group_ids, sha256, strict=True))


def _check_still_there(group_ids: Sequence[str], split: Sequence[str], known: dict[str, str]) -> None:
    """Refuse a split column that moves a known group."""
    moved = [
        f"group {name!r} was in {known[name]} and is now in {now}"
        for name, now in dict(zip(group_ids, split, strict=True)).items()
        if known.get(name, now) != now
    ]
    raise_problems(moved, "Groups keep the split of the previous dataset: mend the split column, or drop --previous.")


def _check_own_split(groups: Groups, split: Sequence[str], space: LabelSpace) -> None:
    """Refuse a split without images, and a class without training images."""
    of_group = np.array(split)
    empty = [s for s in SPLITS if not (of_group == s).any()]
    raise_problems(
        [f"no image is in split {s}" for s in empty], "The split column needs train and test; val is dealt if missing."
    )
    counts = groups.counts[of_group == "train"].sum(axis=0)
    raise_problems(
        [f"class {c!r} has no images in split train" for c, n in zip(space.classes, counts, strict=True) if n == 0],
        "Change the split, or leave the class out of data.classes.",
    )


def _write_images(raw: RawDataset, config: DataConfig, shards: Path) -> list[str]:
    """Decode the images into shards; sha256 (hex) of the pixels of each."""
    shape = (config.image_size, config.image_size, _channels(config))
    loads = [(r.where, r.load) for r in raw.records]
    return _write_shards(shards / "images", loads, shape, np.dtype(np.uint8), "decoding")


def _channels(config: DataConfig) -> int:
    return 1 if config.color == "grey" else 3


def _write(
    raw: RawDataset, config: DataConfig, folder: Path, shards: Path, *, dealt: _Dealt, sha256: Sequence[str]
) -> dict[str, Any]:
    """Write masks and manifest; returns dataset.json. Raises DataError for a finding that stops it (see ``checks``)."""
    space, channels, size = config.label_space(), _channels(config), config.image_size
    manifest = _manifest(raw.records, space, dealt.split, dealt.fold, sha256)
    found = [*raw.findings, *findings(manifest, space)]
    refuse(found, config.waive)
    masked = [i for i, r in enumerate(raw.records) if r.load_mask is not None and dealt.split[i] == "test"]
    masks = _write_masks(shards / "masks", raw.records, masked, (size, size)) if masked else None
    manifest.to_parquet(folder / MANIFEST_FILE, index=False)
    return {
        "schema": SCHEMA,
        "label_space": space.to_json(),
        "image_size": size,
        "channels": channels,
        "source": config.source,
        "licence": config.licence,
        "content_hash": content_hash(manifest, space, size, channels, masks),
        "num_images": len(manifest),
        "num_groups": int(manifest["group_id"].nunique()),
        "unit": unit_of(manifest["image_id"].tolist(), manifest["group_id"].tolist()),
        "counts": {s: int((manifest["split"] == s).sum()) for s in SPLITS},
        "images": "images",
        "masks": "masks" if masks is not None else None,
        "raw": {"path": config.path, **raw.provenance},
        "warnings": warnings_among(found, config.waive),
        "waived": dict(config.waive),
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
