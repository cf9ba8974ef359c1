"""What is odd about a dataset, and what of it is an error: one list, which ``prepare`` and ``verify`` both go by.

Needs tables alone, no pixels. Of what it names, ``WAIVABLE`` kinds are errors unless ``data.waive`` gives a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raregrade.config import WAIVABLE
from raregrade.data.splits import SPLITS
from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.names import outsized_id, suspicious_ids

MAX_LISTED = 10


@dataclass(frozen=True)
class Finding:
    """Something odd about a dataset: ``kind`` (one of ``WAIVABLE``, or what else it is about), and a sentence."""

    kind: str
    text: str


def findings(manifest: pd.DataFrame, label_space: LabelSpace) -> list[Finding]:
    """All that the manifest of a prepared dataset shows."""
    return [
        *identical_images(manifest, label_space),
        *hierarchy_findings(manifest, label_space),
        *missing_classes(manifest, label_space),
        *id_findings(manifest["image_id"].tolist(), manifest["group_id"].tolist()),
    ]


def errors_among(found: Sequence[Finding], waived: Mapping[str, str]) -> list[str]:
    """The sentences of those that stop a dataset: the waivable kinds that nobody has waived."""
    return [f.text for f in found if f.kind in WAIVABLE and f.kind not in waived]


def warnings_among(found: Sequence[Finding], waived: Mapping[str, str]) -> list[str]:
    """The sentences of the others; of a waived one, with the reason."""
    return [
        f"waived: {f.text} (reason: {waived[f.kind]})" if f.kind in waived else f.text
        for f in found
        if f.kind not in WAIVABLE or f.kind in waived
    ]


def refuse(found: Sequence[Finding], waived: Mapping[str, str]) -> None:
    """Raise DataError where one of ``found`` is an error, naming the key that waives it."""
    texts = errors_among(found, waived)
    if not texts:
        return
    kinds = list(dict.fromkeys(f.kind for f in found if f.kind in WAIVABLE and f.kind not in waived))
    keys = ", ".join(f"{kind}: <the reason>" for kind in kinds)
    head = texts[0] if len(texts) == 1 else f"{len(texts)} problems:\n  " + "\n  ".join(texts)
    raise DataError(
        f"{head}\n{' '.join(_WAY_OUT[kind] for kind in kinds)} To go on all the same, say why: "
        f"`data.waive: {{{keys}}}`; the dataset, its reports and comparisons then show it."
    )


_WAY_OUT = {
    "ungrouped": "Set data.group_column to the patient, so that all images of one patient go to one split.",
    "identical_across_splits": "Take the copies out, or let raregrade deal the splits: it keeps copies together.",
    "conflicting_labels": "Mend the labels, or take the images out of the table.",
}


def identical_images(manifest: pd.DataFrame, label_space: LabelSpace) -> list[Finding]:
    """Images with the same pixels in different splits or folds and, wherever they lie, with different labels.

    Labels that are unknown contradict nothing.
    """
    apart, conflicting = [], []
    for _, same in manifest[manifest["sha256"].duplicated(keep=False)].groupby("sha256", sort=True):
        folds = same["fold"][same["fold"] >= 0]
        if same["split"].nunique() > 1:
            apart.append(f"images with identical pixels lie in different splits: {_listed(same, 'split')}")
        elif folds.nunique() > 1:
            apart.append(f"images with identical pixels lie in different folds: {_listed(same, 'fold')}")
        labels = same[label_space.label_columns].to_numpy(dtype=np.float64)
        known = ~np.isnan(labels)
        highest, lowest = np.where(known, labels, -np.inf).max(axis=0), np.where(known, labels, np.inf).min(axis=0)
        if (highest > lowest).any():
            conflicting.append(f"images with identical pixels have different labels: {_listed(same, 'split')}")
    return [
        *(Finding("identical_across_splits", text) for text in shortened(apart)),
        *(Finding("conflicting_labels", text) for text in shortened(conflicting)),
    ]


def hierarchy_findings(manifest: pd.DataFrame, label_space: LabelSpace) -> list[Finding]:
    """Images where a child label is 1 and its parent 0, counted for each edge of the hierarchy."""
    found = []
    for parent, child in label_space.edges:
        wrong = (manifest[f"label_{child}"] == 1) & (manifest[f"label_{parent}"] == 0)
        if wrong.any():
            first = manifest["image_id"].to_numpy()[np.flatnonzero(wrong)[0]]
            text = f"{int(wrong.sum())} images have {child} = 1 and its parent {parent} = 0 (first: {first})"
            found.append(Finding("hierarchy", text))
    return found


def missing_classes(manifest: pd.DataFrame, label_space: LabelSpace) -> list[Finding]:
    """Classes without images in val or test, whose metrics there are undefined. One missing in train is an error."""
    return [
        Finding("missing_class", f"class {name!r} has no images in split {split}")
        for split in SPLITS[1:]
        for name in classes_without(manifest, label_space, split)
    ]


def classes_without(manifest: pd.DataFrame, label_space: LabelSpace, split: str) -> list[str]:
    """Names of the classes that no image of ``split`` has."""
    labels = manifest.loc[manifest["split"] == split, label_space.label_columns].to_numpy(dtype=np.float64)
    one_hot = label_space.task == "multilabel"
    return [
        name for k, name in enumerate(label_space.classes) if not (labels[:, k] == 1 if one_hot else labels == k).any()
    ]


def id_findings(image_ids: Sequence[str], group_ids: Sequence[str]) -> list[Finding]:
    """Patient ids that look like two spellings of one, or like an unknown spelling of "missing"."""
    if list(image_ids) == list(group_ids):
        return []
    texts = [*suspicious_ids(group_ids, "patient"), *outsized_id(group_ids, "patient")]
    return [Finding("suspicious_ids", text) for text in texts]


def shortened(found: list[str]) -> list[str]:
    """At most ten of ``found``, and how many more there are."""
    more = len(found) - MAX_LISTED
    return found if more <= 0 else [*found[:MAX_LISTED], f"and {more} more like the last one"]


def _listed(images: pd.DataFrame, column: str) -> str:
    names = [f"{i} ({v})" for i, v in zip(images["image_id"], images[column], strict=True)]
    more = len(names) - MAX_LISTED
    return ", ".join(names if more <= 0 else [*names[:MAX_LISTED], f"and {more} more"])
