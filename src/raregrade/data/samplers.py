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


def pk_batches(targets: npt.NDArray[Any], p: int, k: int, seed: int, epoch: int) -> list[Indices]:
    """Batches of ``k`` images of each of ``p`` classes, as metric losses need them; about N images an epoch.

    Classes take turns evenly. A class of fewer than ``k`` images fills its place by repeating them (augmentation
    makes them differ); where fewer than ``p`` classes occur, every batch has all of them.

    Args:
        targets: int [N] class indices.
        p: classes in a batch, at least 2.
        k: images of each, at least 2.
        seed: of the run.
        epoch: from 0.

    Raises:
        UserError: p or k below 2, or fewer than two classes.
    """
    targets = np.asarray(targets)
    if min(p, k) < 2:
        raise UserError(f"a metric loss needs batches of at least 2 classes and 2 images of each, got p = {p}, k = {k}")
    if targets.ndim != 1:
        raise UserError(f"P x K batches need one label an image, got targets of shape {list(targets.shape)}")
    members = _members(targets)
    if len(members) < 2:
        raise UserError("P x K batches need images of at least two classes")
    p = min(p, len(members))
    num_batches = max(1, len(targets) // (p * k))
    rng = np.random.default_rng([seed, epoch, 2])
    turns = _class_turns(len(members), p, num_batches, rng)
    batches = np.empty((num_batches, p, k), dtype=np.int64)
    for c, rows in enumerate(members):
        places = np.argwhere(turns == c)
        batches[places[:, 0], places[:, 1]] = _deal(rows, len(places) * k, rng).reshape(-1, k)
    return [rng.permutation(batch.ravel()) for batch in batches]


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


def _class_turns(num_classes: int, p: int, num_batches: int, rng: np.random.Generator) -> Indices:
    """Classes of each batch, [num_batches, p], no class twice in a batch, each equally often, up to one."""
    counts = np.zeros(num_classes)
    turns = np.empty((num_batches, p), dtype=np.int64)
    for b in range(num_batches):
        order = np.lexsort((rng.random(num_classes), counts))
        turns[b] = order[:p]
        counts[turns[b]] += 1
    return turns
