"""What keeps a model from being used, whatever its average: classes that it misses, and probabilities that mislead.

An alarm is raised where the patients at hand leave no reasonable doubt, so that a sound model on few images does not
raise one: at most one sound model in forty does on a split. Tests against a reference are paired patient by patient,
exact, and adjusted for the number of classes. Nothing here decides what an alarm is good for.

Shape legend: N images, K classes, G groups (patients), B bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from raregrade.config.gate import AlarmConfig
from raregrade.evaluation.intervals import FEWEST_POSITIVES, positive_groups
from raregrade.evaluation.jackknife import group_numbers, jackknife_covariance, leave_one_out_auroc
from raregrade.evaluation.limits import wilson
from raregrade.evaluation.metrics import auroc, one_against_rest
from raregrade.evaluation.mrmc import holm
from raregrade.labels import LabelSpace

Floats = npt.NDArray[np.float64]
Kind = Literal["never_predicted", "low_recall", "recall_regression", "auroc_below_chance", "calibration_worse"]
# One-sided and for each split: five of a hundred sound models for validation and test together.
LEVEL = 0.025
# How much larger the gap between confidence and accuracy may be than the reference's, before it counts.
CALIBRATION_MARGIN = 0.1
_BINS = 10


@dataclass(frozen=True)
class Alarm:
    """One reason not to use a model.

    Attributes:
        kind: what is wrong.
        split: where it was seen.
        class_name: the class; None for calibration.
        text: the rest of a sentence that begins with the model's name.
    """

    kind: Kind
    split: str
    class_name: str | None
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Alarm:
        """Inverse of ``to_json``."""
        return cls(value["kind"], value["split"], value["class_name"], value["text"])


@dataclass(frozen=True)
class ModelOnSplit:
    """What a model says of the images of a split.

    Attributes:
        name: as sentences call it, such as ``ce`` or ``the champion (version 3)``.
        probs: [N, K].
        predicted: int64 [N], or bool [N, K] for ``multilabel``.
    """

    name: str
    probs: npt.NDArray[Any]
    predicted: npt.NDArray[Any]


def find_alarms(
    targets: npt.NDArray[Any],
    model: ModelOnSplit,
    groups: npt.NDArray[Any],
    label_space: LabelSpace,
    config: AlarmConfig,
    *,
    split: str,
    reference: ModelOnSplit | None = None,
) -> list[Alarm]:
    """Alarms about ``model`` on the images of one split; worst kind first, classes in their order.

    Args:
        targets: [N] or [N, K].
        model: what it predicts for them.
        groups: [N] names of patients.
        label_space: the task and its K classes.
        config: which classes are watched, and the limits.
        split: its name, for the sentences.
        reference: the baseline or champion on the same images.
    """
    index, count = group_numbers(groups)
    images = _Images(targets, groups, index, count, label_space, split)
    recalls = _recalls(images, model, reference)
    watched = [r for r in recalls if not config.guard or r.class_name in config.guard]
    found = [alarm for recall in watched if (alarm := _missed(recall, config.recall_floor, split, reference))]
    found += _below_chance(images, model)
    if reference is not None:
        found += _regressions(watched, config.recall_drop, split, reference)
        found += _worse_calibration(images, model, reference)
    return worst_first(found)


def worst_first(alarms: Sequence[Alarm]) -> list[Alarm]:
    """By kind, those of one kind in the order given."""
    return sorted(alarms, key=lambda alarm: _ORDER.index(alarm.kind))


_ORDER: tuple[Kind, ...] = (
    "never_predicted",
    "low_recall",
    "auroc_below_chance",
    "recall_regression",
    "calibration_worse",
)


@dataclass(frozen=True)
class _Images:
    """The images of a split: what is true of them and which group each belongs to."""

    targets: npt.NDArray[Any]
    groups: npt.NDArray[Any]
    index: npt.NDArray[np.int64]
    num_groups: int
    space: LabelSpace
    split: str


@dataclass(frozen=True)
class _Recall:
    """Images of a class in each group, how many of them the model and the reference find, both [G]."""

    class_name: str
    images: Floats
    hits: Floats
    others: Floats | None
    predicted_at_all: bool


def _recalls(images: _Images, model: ModelOnSplit, reference: ModelOnSplit | None) -> list[_Recall]:
    """One for each class that the split has."""
    found = []
    for i, name in enumerate(images.space.classes):
        of_class = images.targets[:, i] == 1 if images.targets.ndim == 2 else images.targets == i
        if not of_class.any():
            continue
        owners = images.index[of_class]
        said = _says(model, i)
        hits = np.bincount(owners, weights=said[of_class], minlength=images.num_groups).astype(np.float64)
        others = None
        if reference is not None:
            found_by = _says(reference, i)[of_class]
            others = np.bincount(owners, weights=found_by, minlength=images.num_groups).astype(np.float64)
        held = np.bincount(owners, minlength=images.num_groups).astype(np.float64)
        found.append(_Recall(name, held, hits, others, bool(said.any())))
    return found


def _says(model: ModelOnSplit, i: int) -> npt.NDArray[np.bool_]:
    said: npt.NDArray[np.bool_] = model.predicted[:, i] if model.predicted.ndim == 2 else model.predicted == i
    return said


def _missed(own: _Recall, floor: float, split: str, reference: ModelOnSplit | None) -> Alarm | None:
    name, images, hits = own.class_name, int(own.images.sum()), int(own.hits.sum())
    compared = "" if own.others is None or reference is None else f"; {reference.name} finds {int(own.others.sum())}"
    highest = wilson(own.hits, own.images, 1 - 2 * LEVEL)[1]
    if not own.predicted_at_all and highest < 0.5:
        text = f"never predicts {name} ({images} {split} images have it{compared})"
        return Alarm("never_predicted", split, name, text)
    if highest < floor:
        text = f"finds {hits} of {images} {split} images with {name}, a recall below {floor:g}{compared}"
        return Alarm("low_recall", split, name, text)
    return None


def _regressions(recalls: Sequence[_Recall], drop: float, split: str, reference: ModelOnSplit) -> list[Alarm]:
    """Classes that the reference finds and the model misses: a sign test over patients, one-sided."""
    from scipy.stats import binomtest  # noqa: PLC0415 - takes a second

    p_values, texts = {}, {}
    for own in recalls:
        assert own.others is not None
        change = own.hits - own.others
        worse, better = int((change < 0).sum()), int((change > 0).sum())
        p_values[own.class_name] = (
            float(binomtest(worse, worse + better, alternative="greater").pvalue) if worse + better else 1.0
        )
        if -change.sum() / own.images.sum() > drop:
            texts[own.class_name] = (
                f"finds {int(own.hits.sum())} of {int(own.images.sum())} {split} images with {own.class_name}, "
                f"{reference.name} {int(own.others.sum())}"
            )
    adjusted = holm(p_values)
    return [Alarm("recall_regression", split, name, text) for name, text in texts.items() if adjusted[name] <= LEVEL]


def _below_chance(images: _Images, model: ModelOnSplit) -> list[Alarm]:
    from scipy.stats import t as student  # noqa: PLC0415

    positives = positive_groups(images.targets, images.groups, images.space)
    p_values, texts = {}, {}
    columns = one_against_rest(images.targets, model.probs, images.space)
    for name, (positive, scores, known) in zip(images.space.classes, columns, strict=True):
        if positives[name] < FEWEST_POSITIVES or positive.all():
            continue
        area = auroc(scores, positive)
        left_out = leave_one_out_auroc(scores, positive, images.index[known], images.num_groups)
        error = math.sqrt(max(float(jackknife_covariance(left_out[None])[0, 0]), 1e-24))
        p_values[name] = float(student.sf((0.5 - area) / error, positives[name] - 1))
        texts[name] = f"ranks {images.split} images with {name} below those without (AUROC {area:.2f})"
    adjusted = holm(p_values)
    return [Alarm("auroc_below_chance", images.split, n, texts[n]) for n in texts if adjusted[n] <= LEVEL]


def _worse_calibration(images: _Images, model: ModelOnSplit, reference: ModelOnSplit) -> list[Alarm]:
    """Expected calibration error, paired by a jackknife over groups."""
    from scipy.stats import t as student  # noqa: PLC0415

    (own, own_left), (other, other_left) = (_calibration_error(images, m.probs) for m in (model, reference))
    excess = own - other - CALIBRATION_MARGIN
    error = math.sqrt(max(float(jackknife_covariance((own_left - other_left)[None])[0, 0]), 1e-24))
    if excess <= 0 or student.sf(excess / error, max(images.num_groups - 1, 1)) > LEVEL:
        return []
    text = (
        f"has misleading probabilities: on {images.split} they are off by {own:.2f} on average, "
        f"those of {reference.name} by {other:.2f}"
    )
    return [Alarm("calibration_worse", images.split, None, text)]


def _calibration_error(images: _Images, probs: npt.NDArray[Any]) -> tuple[float, Floats]:
    """Expected calibration error (Naeini et al., AAAI 2015) and its value without each group, [G]."""
    if images.space.task == "multilabel":
        known = ~np.isnan(images.targets)
        confidence, hit = probs[known], images.targets[known] == 1
        owner = images.index[np.nonzero(known)[0]]
    else:
        confidence, owner = probs.max(axis=1), images.index
        hit = probs.argmax(axis=1) == images.targets
    cell = owner * _BINS + np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    shape = (images.num_groups, _BINS)
    gaps = np.bincount(cell, weights=hit - confidence, minlength=images.num_groups * _BINS).reshape(shape)
    sizes = np.bincount(cell, minlength=images.num_groups * _BINS).reshape(shape)
    whole = float(np.abs(gaps.sum(axis=0)).sum() / max(1, sizes.sum()))
    left = np.abs(gaps.sum(axis=0) - gaps).sum(axis=1) / np.maximum(1, sizes.sum() - sizes.sum(axis=1))
    return whole, left
