"""Patients, and models that look at them, whose true quality is known: the simulation behind ``verdict.py``.

A patient has one to four images, which mostly have one class, and a difficulty that every model meets. A model sees an
image's truth through noise: part of it every model meets (the image is hard), part the models of one loss share (what
that loss finds hard), and part is its own. How much noise it has is the luck of its training: the logarithm of its
scale is normal around what the loss achieves, with standard deviation ``spread``. Nothing here knows how a difference
is tested.

Shape legend: N images, K classes, M models, G patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.labels import LabelSpace

Floats = npt.NDArray[np.float64]
_SAME_CLASS = 0.8  # share of a patient's images that have the patient's class
_OF_IMAGE, _OF_PATIENT, _OF_LOSS, _OWN = 0.55, 0.35, 0.25, 0.38  # standard deviations of the noise, in grades


@dataclass(frozen=True)
class World:
    """A kind of data.

    Attributes:
        space: the label space.
        shares: of patients with each class; for ``multilabel`` each label's own.
        most_images: of a patient; their number is uniform from one.
        noise: factor on all noise: how hard the task is.
    """

    space: LabelSpace
    shares: tuple[float, ...]
    most_images: int = 4
    noise: float = 1.0


ORDINAL = World(LabelSpace("ordinal", ("none", "mild", "moderate", "severe")), (0.45, 0.25, 0.18, 0.12))
RARE = World(LabelSpace("ordinal", ("none", "mild", "moderate", "severe")), (0.55, 0.28, 0.12, 0.05))
NOMINAL = World(LabelSpace("multiclass", ("nevus", "melanoma", "keratosis", "other")), (0.6, 0.2, 0.12, 0.08))
MULTILABEL = World(
    LabelSpace("multilabel", ("opacity", "nodule", "effusion"), (("opacity", "nodule"),)), (0.4, 0.12, 0.2)
)


@dataclass(frozen=True)
class Patients:
    """A split: ``targets`` [N] or [N, K], ``groups`` [N] numbers of patients, ``hardness`` [N] or [N, K]."""

    targets: npt.NDArray[Any]
    groups: npt.NDArray[np.int64]
    hardness: Floats


def draw_patients(rng: np.random.Generator, world: World, count: int) -> Patients:
    """``count`` patients with their images."""
    groups = np.repeat(np.arange(count), rng.integers(1, world.most_images + 1, count))
    images, k = len(groups), world.space.num_classes
    if world.space.task == "multilabel":
        shares = np.asarray(world.shares)
        of_patient = rng.random((count, k)) < shares
        alike = rng.random((images, k)) < _SAME_CLASS
        targets = np.where(alike, of_patient[groups], rng.random((images, k)) < shares).astype(np.float64)
        for parent, child in world.space.edge_indices:  # a finding implies what it stands under
            targets[:, parent] = np.maximum(targets[:, parent], targets[:, child])
        return Patients(targets, groups, _hardness(rng, groups, (k,)))
    class_of_patient = rng.choice(k, count, p=world.shares)
    alike = rng.random(images) < _SAME_CLASS
    targets = np.where(alike, class_of_patient[groups], rng.choice(k, images, p=world.shares))
    return Patients(targets, groups, _hardness(rng, groups, () if world.space.task == "ordinal" else (k,)))


def draw_models(rng: np.random.Generator, world: World, patients: Patients, scales: npt.ArrayLike) -> Floats:
    """Probabilities [M, N, K] of the models of one loss with noise ``scales`` [M]; 1 is usual, less is better."""
    k, task = world.space.num_classes, world.space.task
    factor = world.noise * np.asarray(scales, dtype=np.float64)
    factor = factor.reshape(-1, *(1,) * patients.hardness.ndim)
    shape = patients.hardness.shape
    met = patients.hardness + rng.normal(0, _OF_LOSS, shape)
    seen = factor * (met + rng.normal(0, _OWN, (len(factor), *shape)))
    if task == "ordinal":
        logits = -2 * (patients.targets[:, None] + seen[..., None] - np.arange(k)) ** 2
    elif task == "multiclass":
        logits = 3 * (np.eye(k)[patients.targets] + seen)
    else:
        return np.asarray(1 / (1 + np.exp(-4 * (patients.targets - 0.5 + seen))), dtype=np.float64)
    raised = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.asarray(raised / raised.sum(axis=2, keepdims=True), dtype=np.float64)


def draw_scales(rng: np.random.Generator, seeds: int, spread: float, gain: float = 0.0) -> Floats:
    """Noise scales of ``seeds`` trainings of a loss, whose typical one is exp(-``gain``)."""
    return np.asarray(np.exp(rng.normal(0, spread, seeds) - gain), dtype=np.float64)


def _hardness(rng: np.random.Generator, groups: npt.NDArray[np.int64], columns: tuple[int, ...]) -> Floats:
    """Noise that every model meets: of the image and of its patient."""
    of_patient = rng.normal(0, _OF_PATIENT, (groups.max() + 1, *columns))
    return np.asarray(rng.normal(0, _OF_IMAGE, (len(groups), *columns)) + of_patient[groups], dtype=np.float64)
