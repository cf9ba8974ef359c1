"""Which images make which batch where classes are to be balanced. Pure functions of (targets, seed, epoch).

Each class is dealt like a pack of cards: all of its images once, in random order, before any of them comes again, so
no image waits while another of its class is seen twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.errors import UserError

Indices = npt.NDArray[np.int64]


def class_balanced_indices(targets: npt.NDArray[Any], seed: int, epoch: int, n: int) -> Indices:
    """``n`` positions in ``targets`` [N], every class that occurs equally often, up to one.

    Args:
        targets: int [N] class indices, or float [N, K] of a multilabel task. There an image is drawn for each of its
            positive labels, and images without any form a class of their own, so labels that come together are
            balanced roughly.
        seed: of the run.
        epoch: from 0.
        n: length of the epoch.

    Raises:
        UserError: no targets, or n < 1.
    """
    members = _members(np.asarray(targets))
    if n < 1:
        raise UserError(f"an epoch needs at least one image, got n = {n}")
    rng = np.random.default_rng([seed, epoch, 1])
    classes = rng.permutation(np.arange(n) % len(members))
    chosen = np.empty(n, dtype=np.int64)
    for c, rows in enumerate(members):
        places = np.flatnonzero(classes == c)
        chosen[places] = _deal(rows, len(places), rng)
    return chosen


def pk_batches(targets: npt.NDArray[Any], size: int, least: int, *, count: int, seed: int, epoch: int) -> list[Indices]:
    """``count`` batches of ``size`` images of P classes, as metric losses need them.

    P is as large as the number of classes that occur and ``least`` images of each allow, and at least 2. The images
    of a batch are shared out evenly among its classes, up to one, and over an epoch classes take turns. A class
    fills its place by repeating its images where it has too few (augmentation makes them differ).

    Args:
        targets: int [N] class indices.
        size: images of a batch, at least 4.
        least: images of each of its classes, at least 2.
        count: batches of the epoch.
        seed: of the run.
        epoch: from 0.

    Raises:
        UserError: a batch doesn't hold two classes of at least two images, or fewer than two classes occur.
    """
    targets = np.asarray(targets)
    if targets.ndim != 1:
        raise UserError(f"P x K batches need one label an image, got targets of shape {list(targets.shape)}")
    members = _members(targets)
    if len(members) < 2:
        raise UserError("P x K batches need images of at least two classes")
    if least < 2 or size < 4:
        raise UserError(
            "a metric loss needs batches of at least 2 classes and 2 images of each, got batches of "
            f"{size} images and at least {least} of each class. Set a larger train.batch_size or a smaller "
            "train.accumulate, or train on more images"
        )
    rng = np.random.default_rng([seed, epoch, 2])
    shares = _class_shares(len(members), min(len(members), max(2, size // least)), size, count, rng)
    dealt = [_deal(rows, int(number), rng) for rows, number in zip(members, shares.sum(axis=0), strict=True)]
    cuts = shares.cumsum(axis=0)
    batches = []
    for ends, numbers in zip(cuts, shares, strict=True):
        parts = [rows[end - n : end] for rows, end, n in zip(dealt, ends, numbers, strict=True)]
        batches.append(rng.permutation(np.concatenate(parts)))
    return batches


def _members(targets: npt.NDArray[Any]) -> list[Indices]:
    """Positions of each class that occurs."""
    if len(targets) == 0:
        raise UserError("there are no targets to sample from")
    if targets.ndim == 1:
        members = [np.flatnonzero(targets == c) for c in np.unique(targets)]
    else:
        positive = targets == 1
        members = [np.flatnonzero(column) for column in positive.T]
        members.append(np.flatnonzero(~positive.any(axis=1)))
    return [rows for rows in members if len(rows)]


def _deal(rows: Indices, n: int, rng: np.random.Generator) -> Indices:
    """``n`` of ``rows``, each of them once before any comes again."""
    rounds = -(-n // len(rows))
    order = np.argsort(rng.random((rounds, len(rows))), axis=1)
    return rows[order.ravel()[:n]]


def _class_shares(num_classes: int, p: int, size: int, count: int, rng: np.random.Generator) -> Indices:
    """Images of each class in each of ``count`` batches, [count, C]: ``p`` classes share ``size`` images evenly.

    Those that had the fewest so far come first, also to the images that are left over.
    """
    shares = np.zeros((count, num_classes), dtype=np.int64)
    had = np.zeros(num_classes, dtype=np.int64)
    each, left = divmod(size, p)
    for batch in shares:
        order = np.lexsort((rng.random(num_classes), had))[:p]
        batch[order] = each
        batch[order[:left]] += 1
        had += batch
    return shares
