"""What a model says of the validation and test images of a dataset, and how two models differ on them.

Two registered models are fixed: the question is which of the two is better for patients like these, whatever luck there
was in training, so only patients are random here. Whether a loss is better than another is the comparison's question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.config import AlarmConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.evaluation.alarms import Alarm, ModelOnSplit, find_alarms
from raregrade.evaluation.jackknife import jackknife_covariance, leave_one_out
from raregrade.evaluation.limits import jackknife_df
from raregrade.evaluation.metrics import compute_metrics, predictions_of
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision
from raregrade.models.folder import LoadedModel
from raregrade.registry.gate import PairedDifference, Reference

SPLITS = ("val", "test")
_ROWS_AT_ONCE = 1024
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Images:
    """The labelled images of a split: ``targets`` [N] or [N, K], ``groups`` [N] names of patients."""

    targets: npt.NDArray[Any]
    groups: npt.NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """A model's probabilities for labelled images.

    Attributes:
        name: as sentences call the model.
        label_space: the task and its K classes.
        decision: how the model decides.
        images: by split.
        probs: [N, K] by split.
    """

    name: str
    label_space: LabelSpace
    decision: Decision
    images: Mapping[str, Images]
    probs: Mapping[str, npt.NDArray[Any]]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """``val_*`` and ``test_*``."""
        return {
            f"{split}_{name}": value
            for split, images in self.images.items()
            for name, value in compute_metrics(
                images.targets, self.probs[split], self.label_space, self.decision
            ).items()
        }

    def on_split(self, split: str) -> ModelOnSplit:
        """As ``find_alarms`` takes it."""
        probs = self.probs[split]
        return ModelOnSplit(self.name, probs, predictions_of(probs, self.label_space, self.decision))


def measure(model: LoadedModel, dataset: PreparedDataset, *, name: str, decision: Decision | None = None) -> Measured:
    """Let ``model`` predict the validation and test images of ``dataset``, whose shape and labels it must have.

    Args:
        model: what predicts.
        dataset: what is predicted.
        name: as sentences call the model.
        decision: how it decides; as its card says where None.
    """
    images, probs = {}, {}
    for split in SPLITS:
        rows = dataset.rows(split)
        if not len(rows):
            continue
        parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
        logits = np.concatenate([model.predict(dataset.images(part)) for part in parts])
        images[split] = Images(dataset.targets(rows), dataset.manifest["group_id"].to_numpy()[rows])
        probs[split] = model.probabilities(logits)
    return Measured(name, dataset.label_space, decision or model.decision, images, probs)


def held_against(candidate: Measured, other: Measured) -> Reference:
    """``other`` as what the gate holds ``candidate`` against."""
    return Reference(other.name, other.metrics, candidate.metrics, differences=differences(candidate, other))


def differences(candidate: Measured, other: Measured) -> dict[str, PairedDifference]:
    """Every metric that both define, candidate minus other, with its standard error over patients (jackknife)."""
    found = {}
    for split, images in candidate.images.items():
        left_out = [
            leave_one_out(images.targets, m.probs[split], images.groups, m.label_space, m.decision)
            for m in (candidate, other)
        ]
        for name in left_out[0]:
            key = f"{split}_{name}"
            if key in candidate.metrics and key in other.metrics:
                mean = candidate.metrics[key] - other.metrics[key]
                found[key] = _paired(mean, left_out[0][name] - left_out[1][name])
    return found


def alarms_about(candidate: Measured, config: AlarmConfig, reference: Measured | None = None) -> list[Alarm]:
    """Alarms about ``candidate`` on both splits, against ``reference`` on the same images where it is given."""
    return [
        alarm
        for split, images in candidate.images.items()
        for alarm in find_alarms(
            images.targets,
            candidate.on_split(split),
            images.groups,
            candidate.label_space,
            config,
            split=split,
            reference=None if reference is None else reference.on_split(split),
        )
    ]


def _paired(mean: float, left_out: npt.NDArray[np.float64]) -> PairedDifference:
    """From the difference of the two metrics without each patient, [G]."""
    defined = left_out[~np.isnan(left_out)]
    if len(defined) < 2:
        return PairedDifference(math.nan, 0.0, None)
    error = math.sqrt(max(float(jackknife_covariance(defined[None])[0, 0]), 0.0))
    return (
        PairedDifference(mean, 0.0, None)
        if error <= _ROUNDING
        else PairedDifference(mean, error, jackknife_df(defined))
    )
