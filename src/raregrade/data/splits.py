"""Dealing groups (patients, lesions) to train, val and test, and to folds.

A group is never divided. Works on counts of labels per group; knows nothing of files or images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raregrade.config import SplitConfig
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

SPLITS = ("train", "val", "test")
_ATTEMPTS = 20

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """The groups of a dataset, in order of their names.

    Attributes:
        names: G group ids.
        of_row: int64 [N], the group of each image.
        counts: int64 [G, K], images of each group that have each class.
        sizes: int64 [G], images of each group.
    """

    names: tuple[str, ...]
    of_row: Ints
    counts: Ints
    sizes: Ints

    @classmethod
    def from_rows(cls, group_ids: Sequence[str], labels: npt.NDArray[np.float32]) -> Groups:
        """``labels`` [N, K]: 1 where the image has the class (0 and NaN otherwise)."""
        names, of_row = np.unique(np.asarray(group_ids, dtype=np.str_), return_inverse=True)
        counts = np.zeros((len(names), labels.shape[1]), dtype=np.int64)
        np.add.at(counts, of_row, (labels > 0).astype(np.int64))
        return cls(tuple(names.tolist()), of_row.astype(np.int64), counts, np.bincount(of_row).astype(np.int64))


def join_alike(
    group_ids: Sequence[str], alike: Sequence[str | None], known: Mapping[str, str] | None = None
) -> list[str]:
    """The group of each row, with groups joined that have rows in common: one name, the first, for all of them.

    Args:
        group_ids: [N] the group of each row.
        alike: [N] rows with the same value (the sha256 of their pixels) are the same image; None: like no other.
        known: splits that groups already have; groups of different splits are not joined.
    """
    leader = {name: name for name in group_ids}
    home = {name: split for name, split in (known or {}).items() if name in leader}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    first: dict[str, str] = {}
    for name, value in zip(group_ids, alike, strict=True):
        if value is None:
            continue
        a, b = sorted((find(name), find(first.setdefault(value, name))))
        if a != b and not (a in home and b in home and home[a] != home[b]):
            leader[b] = a
            if b in home:
                home[a] = home[b]
    return [find(name) for name in group_ids]


def assign_splits(
    groups: Groups, config: SplitConfig, label_space: LabelSpace, seed: int, known: Mapping[str, str] | None = None
) -> list[str]:
    """Split of each group: train, val or test.

    Groups are dealt so that each split has its share of the images of every class; each class is in each split.
    The deal depends on ``seed``, group names and labels, not on the order of rows.

    Args:
        known: splits that groups already have (an earlier version of the dataset, or the source's own split);
            these stay. Names that are not among ``groups`` are ignored.

    Raises:
        DataError: a class with images from fewer than three groups, or that cannot be dealt to all three splits.
    """
    fixed = np.array([SPLITS.index(known[n]) if known and n in known else -1 for n in groups.names], dtype=np.int64)
    _check_enough_groups(groups, label_space)
    shares = np.array([1 - config.val - config.test, config.val, config.test])
    dealt, missing = deal(groups, shares, seed, fixed)
    if missing:
        k, b = missing[0]
        have = int((groups.counts[:, k] > 0).sum())
        kept = " with the groups that keep their split" if (fixed >= 0).any() else ""
        raise DataError(
            f"class {label_space.classes[k]!r} cannot be in each of train, val and test{kept}: its images come from "
            f"{have} groups, and none of them could be given to {SPLITS[b]}. Add images of it from new patients, merge "
            "the class with another, or leave it out of data.classes."
        )
    return [SPLITS[b] for b in dealt]


def deal_validation(
    groups: Groups,
    config: SplitConfig,
    label_space: LabelSpace,
    seed: int,
    *,
    split: Sequence[str],
    known: Mapping[str, str] | None = None,
) -> list[str]:
    """Give ``config.val`` of the train groups in ``split`` (one entry a group) to val; test stays as it is.

    ``known`` as in ``assign_splits``: of the train groups, those that were train or val before stay so.

    Raises:
        DataError: a class with training images that cannot be in both train and val.
    """
    inside = np.flatnonzero(np.array(split) == "train")
    bins = {"train": 0, "val": 1}
    fixed = np.array([bins.get((known or {}).get(groups.names[i], ""), -1) for i in inside], dtype=np.int64)
    part = _subset(groups, inside)
    dealt, missing = deal(part, np.array([1 - config.val, config.val]), seed, fixed)
    lacking = {k for k, _ in missing} | set(np.flatnonzero((part.counts > 0).sum(axis=0) == 1).tolist())
    if lacking:
        names = ", ".join(repr(label_space.classes[k]) for k in sorted(lacking))
        raise DataError(
            f"class {names} cannot be in both train and val: too few groups of split train have it. Mark rows as val "
            "in the split column, or add images of the class from other patients."
        )
    result = list(split)
    for i, b in zip(inside, dealt, strict=True):
        result[i] = SPLITS[b]
    return result


def assign_folds(groups: Groups, split: Sequence[str], folds: int, seed: int) -> Ints:
    """Fold 0 to folds-1 of each group of train and val, stratified as the splits are; -1 for test.

    Raises:
        DataError: fewer groups than folds.
    """
    inside = np.flatnonzero(np.array(split) != "test")
    if len(inside) < folds:
        raise DataError(
            f"data.split.folds: {folds} folds need as many groups in train and val, there are {len(inside)}. "
            "Set fewer folds."
        )
    dealt, _ = deal(_subset(groups, inside), np.full(folds, 1 / folds), seed, np.full(len(inside), -1))
    result = np.full(len(groups.names), -1, dtype=np.int64)
    result[inside] = dealt
    return result


def deal(groups: Groups, shares: Floats, seed: int, fixed: Ints) -> tuple[Ints, list[tuple[int, int]]]:
    """Deal groups to bins in proportion to ``shares`` [B], for every class and for the number of images.

    Groups of the rarest class go first, larger before smaller, each to the bin that lowers most the chi-square
    distance between counts and shares: iterative stratification (Sechidis et al. 2011, doi
    10.1007/978-3-642-23808-6_10), for groups instead of single images. While a class has only as many groups left
    as bins that lack it, these groups must go to those bins; where that fails, the class is dealt earlier.

    Args:
        fixed: int64 [G], the bin a group must stay in, or -1.

    Returns:
        The bin of each group, and the (class, bin) pairs that stayed without a group, though there are groups enough.
    """
    first: list[int] = []
    best: tuple[Ints, list[tuple[int, int]]] | None = None
    for attempt in range(_ATTEMPTS):
        dealt = _Deal(groups, shares, fixed).run(_order(groups, seed, attempt, first))
        missing = _missing(groups, dealt, len(shares))
        if best is None or len(missing) < len(best[1]):
            best = dealt, missing
        if not missing:
            break
        first = list(dict.fromkeys([*(k for k, _ in missing), *first]))
    assert best is not None
    return best


class _Deal:
    """The state of one deal: what each bin holds, and which groups are left."""

    def __init__(self, groups: Groups, shares: Floats, fixed: Ints) -> None:
        # The number of images counts as one more class, which every image has.
        self._counts = np.column_stack([groups.counts, groups.sizes]).astype(np.float64)
        self._has = self._counts > 0
        self._target = np.maximum(shares[:, None] * self._counts.sum(axis=0), 1e-9)
        self._held = np.zeros_like(self._target)
        self._holders = np.zeros(self._target.shape, dtype=np.int64)
        self._left = self._has.sum(axis=0)
        self.bins = np.full(len(fixed), -1, dtype=np.int64)
        for g in np.flatnonzero(fixed >= 0):
            self._give(int(g), int(fixed[g]))

    def run(self, order: Ints) -> Ints:
        for g in order:
            if self.bins[g] < 0:
                self._give(int(g), self._choose(int(g)))
        return self.bins

    def _choose(self, g: int) -> int:
        count = self._counts[g]
        cost = ((2 * (self._held - self._target) + count) * count / self._target).sum(axis=1)
        lacking = (self._holders == 0) & self._has[g]
        urgent = lacking[:, lacking.sum(axis=0) >= self._left]  # classes that have no group to spare
        if urgent.any():
            needs = urgent.sum(axis=1)
            cost = np.where(needs == needs.max(), cost, np.inf)
        return int(np.argmin(cost))

    def _give(self, g: int, to: int) -> None:
        self.bins[g] = to
        self._held[to] += self._counts[g]
        self._holders[to] += self._has[g]
        self._left -= self._has[g]


def _order(groups: Groups, seed: int, attempt: int, first: Sequence[int]) -> Ints:
    """Groups by their rarest class (classes ``first`` before all), then larger first, then at random by name."""
    frequency = (groups.counts > 0).sum(axis=0).astype(np.float64)
    rank = np.empty(len(frequency), dtype=np.int64)
    frequency[list(first)] = np.arange(len(first)) - len(first)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    rarest = np.where(groups.counts > 0, rank, len(rank)).min(axis=1)
    of_rarest = np.where(groups.counts > 0, rank == rarest[:, None], False)
    weight = (groups.counts * of_rarest).sum(axis=1)
    ticket = [hashlib.blake2b(f"{seed}/{attempt}/{n}".encode(), digest_size=8).digest() for n in groups.names]
    by_ticket = np.argsort(np.array([int.from_bytes(t) for t in ticket], dtype=np.uint64), kind="stable")
    order = np.lexsort((-groups.sizes[by_ticket], -weight[by_ticket], rarest[by_ticket]))
    return by_ticket[order]


def _missing(groups: Groups, dealt: Ints, bins: int) -> list[tuple[int, int]]:
    """(class, bin) pairs without a group, of classes that have at least as many groups as there are bins."""
    has = groups.counts > 0
    return [
        (k, b)
        for k in range(has.shape[1])
        if has[:, k].sum() >= bins
        for b in range(bins)
        if not has[dealt == b, k].any()
    ]


def _subset(groups: Groups, inside: Ints) -> Groups:
    names = tuple(groups.names[i] for i in inside)
    return Groups(names, np.zeros(0, dtype=np.int64), groups.counts[inside], groups.sizes[inside])


def _check_enough_groups(groups: Groups, label_space: LabelSpace) -> None:
    have = (groups.counts > 0).sum(axis=0)
    few = [f"{name!r} ({n})" for name, n in zip(label_space.classes, have, strict=True) if n < len(SPLITS)]
    if few:
        raise DataError(
            f"class {', '.join(few)} has images from fewer than 3 groups (the number in brackets); at least 3 are "
            "needed, one each for train, val and test. Add images from other patients, merge the class with another, "
            "or leave it out of data.classes."
        )
