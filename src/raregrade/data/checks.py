"""Oddities of a manifest that ``prepare`` warns of and ``verify`` reports. Needs the table alone, no pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raregrade.labels import LabelSpace

MAX_LISTED = 10


def identical_images(manifest: pd.DataFrame, label_space: LabelSpace) -> list[str]:
    """Images with the same pixels in different splits or, wherever they lie, with different labels."""
    found = []
    for _, same in manifest[manifest["sha256"].duplicated(keep=False)].groupby("sha256", sort=True):
        problems = []
        if same["split"].nunique() > 1:
            problems.append("lie in different splits")
        if len(same[label_space.label_columns].drop_duplicates()) > 1:
            problems.append("have different labels")
        if problems:
            names = ", ".join(f"{i} ({s})" for i, s in zip(same["image_id"], same["split"], strict=True))
            found.append(f"images with identical pixels {' and '.join(problems)}: {names}")
    return shortened(found)


def hierarchy_problems(manifest: pd.DataFrame, label_space: LabelSpace) -> list[str]:
    """Images where a child label is 1 and its parent 0, counted for each edge of the hierarchy."""
    found = []
    for parent, child in label_space.edges:
        wrong = (manifest[f"label_{child}"] == 1) & (manifest[f"label_{parent}"] == 0)
        if wrong.any():
            first = manifest["image_id"].to_numpy()[np.flatnonzero(wrong)[0]]
            found.append(f"{int(wrong.sum())} images have {child} = 1 and its parent {parent} = 0 (first: {first})")
    return found


def shortened(found: list[str]) -> list[str]:
    """At most ten of ``found``, and how many more there are."""
    more = len(found) - MAX_LISTED
    return found if more <= 0 else [*found[:MAX_LISTED], f"and {more} more like the last one"]
