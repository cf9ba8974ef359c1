"""Checking a prepared dataset against itself: hashes, counts, splits, labels. It mends nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from raregrade.data.checks import classes_without, errors_among, findings, shortened, warnings_among
from raregrade.data.manifest import INFO_FILE, PreparedDataset, read_info
from raregrade.data.progress import track
from raregrade.data.splits import SPLITS
from raregrade.errors import DataError

_CHUNK = 256


def verify_dataset(root: Path) -> list[str]:
    """Problems of the prepared dataset in folder ``root``, one sentence each; empty when it is sound.

    What ``prepare`` accepts, or was told to accept by ``data.waive``, is no problem: see ``dataset_warnings``.

    Raises:
        DataError: there is no prepared dataset in ``root``.
    """
    root = Path(root)
    read_info(root)
    try:
        dataset = PreparedDataset.open(root)
    except DataError as err:
        return [str(err)]
    return [
        *_wrong_splits(dataset),
        *_wrong_labels(dataset),
        *_wrong_pixels(dataset),
        *_wrong_info(dataset),
        *errors_among(findings(dataset.manifest, dataset.label_space), waived_in(dataset)),
    ]


def dataset_warnings(dataset: PreparedDataset) -> list[str]:
    """What ``prepare`` warned of, and what the same checks find now (a dataset may be older than a check)."""
    found = warnings_among(findings(dataset.manifest, dataset.label_space), waived_in(dataset))
    return list(dict.fromkeys([*dataset.info.get("warnings", []), *found]))


def waived_in(dataset: PreparedDataset) -> dict[str, str]:
    """The kinds of findings that were waived when the dataset was prepared, and why."""
    return dict(dataset.info.get("waived", {}))


def _wrong_splits(dataset: PreparedDataset) -> list[str]:
    manifest = dataset.manifest
    problems = []
    unknown = sorted(set(manifest["split"].astype(str)) - set(SPLITS))
    if unknown:
        problems.append(f"unknown split {', '.join(unknown)}; allowed: {', '.join(SPLITS)}")
    problems += [f"split {s} has no images" for s in SPLITS if not (manifest["split"] == s).any()]
    per_group = manifest.groupby("group_id")["split"].unique()
    leaking = per_group[per_group.map(len) > 1]
    problems += shortened([f"group {g!r} is in splits {', '.join(s)}" for g, s in leaking.items()])
    per_fold = manifest.groupby("group_id")["fold"].nunique()
    problems += shortened([f"group {g!r} is in {n} folds" for g, n in per_fold[per_fold > 1].items()])
    wrong_fold = (manifest["fold"] == -1) != (manifest["split"] == "test")
    if wrong_fold.any():
        problems.append(f"{int(wrong_fold.sum())} images have fold -1 outside test, or a fold in test")
    doubles = manifest["image_id"][manifest["image_id"].duplicated()]
    return problems + shortened([f"image_id {i!r} is given more than once" for i in doubles.unique()])


def _wrong_labels(dataset: PreparedDataset) -> list[str]:
    space, labels = dataset.label_space, dataset.manifest[dataset.label_space.label_columns]
    values = labels.to_numpy(dtype=np.float64)
    multilabel = space.task == "multilabel"
    allowed = np.array([0.0, 1.0]) if multilabel else np.arange(space.num_classes, dtype=np.float64)
    wrong = ~np.isin(values, allowed) & ~(multilabel & np.isnan(values))
    ids = dataset.manifest["image_id"]
    problems = shortened(
        [
            f"row {i} ({ids.iloc[i]}): {space.label_columns[k]} is {values[i, k]:g}; allowed: 0 to {allowed[-1]:g}"
            for i, k in np.argwhere(wrong).tolist()
        ]
    )
    if multilabel:
        blank = np.flatnonzero(np.isnan(values).all(axis=1)).tolist()
        problems += shortened([f"row {i} ({ids.iloc[i]}): every label is unknown" for i in blank])
    lacking = classes_without(dataset.manifest, space, "train")
    return problems + [f"class {name!r} has no images in split train" for name in lacking]


def _wrong_pixels(dataset: PreparedDataset) -> list[str]:
    expected = dataset.manifest["sha256"].to_numpy()
    problems = []
    for start in track(range(0, len(dataset), _CHUNK), -(-len(dataset) // _CHUNK), "verifying"):
        for i, image in enumerate(dataset.images(slice(start, start + _CHUNK)), start=start):
            if hashlib.sha256(image.tobytes()).hexdigest() != expected[i]:
                problems.append(
                    f"row {i} ({dataset.manifest['image_id'].iloc[i]}): its pixels are not those of its sha256"
                )
    return shortened(problems)


def _wrong_info(dataset: PreparedDataset) -> list[str]:
    problems = []
    if dataset.computed_hash() != dataset.content_hash:
        problems.append(f"{INFO_FILE}: content_hash is not that of manifest, label space and masks")
    counts = {s: int((dataset.manifest["split"] == s).sum()) for s in SPLITS}
    for key, found in (("num_images", len(dataset)), ("counts", counts)):
        if dataset.info.get(key) != found:
            problems.append(f"{INFO_FILE}: {key} is {dataset.info.get(key)}, the manifest has {found}")
    return problems
