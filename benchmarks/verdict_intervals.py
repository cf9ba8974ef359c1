"""How often the interval of a metric covers the truth, for ``verdict.py``.

The truth is the metric of the same model on very many patients. Counted are intervals that are shown: where too few
patients have a class raregrade shows none. A metric of a class is counted by how many patients have the class.

Shape legend: N images, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from verdict_worlds import Patients, World, draw_models, draw_patients

from raregrade.evaluation.intervals import model_intervals, positive_groups
from raregrade.evaluation.metrics import compute_metrics, predictions_of

_POPULATION = 150_000  # patients: the truth's own error is a hundredth of an interval's at 1500 patients


@dataclass(frozen=True)
class Sample:
    """One row of the table: a world, and how many patients a split has."""

    world: World
    patients: int


@dataclass
class Count:
    """Intervals of one metric: how many were shown, covered, lay above the truth, and how often none was shown."""

    shown: int = 0
    covered: int = 0
    above: int = 0
    none: int = 0


def coverage(sample: Sample, times: int, seed: int) -> dict[str, Count]:
    """By metric."""
    rng = np.random.default_rng(seed)
    space, true = sample.world.space, truth(sample.world)
    found: dict[str, Count] = defaultdict(Count)
    for _ in range(times):
        patients = draw_patients(rng, sample.world, sample.patients)
        probs = draw_models(rng, sample.world, patients, [1.0])[0]
        for name, interval in model_intervals(patients.targets, probs, patients.groups, space).items():
            count = found[name]
            if interval.low is None or interval.high is None:
                count.none += 1
                continue
            count.shown += 1
            count.covered += interval.low <= true[name] <= interval.high
            count.above += true[name] < interval.low
    return dict(found)


def coverage_all(samples: Sequence[Sample], times: Sequence[int], jobs: int) -> list[dict[str, Count]]:
    """``coverage`` of each sample, in processes; the numbers do not depend on ``jobs``."""
    arguments = (samples, times, range(len(samples)))
    if jobs == 1:
        return list(map(coverage, *arguments))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(coverage, *arguments))


@lru_cache
def truth(world: World) -> Mapping[str, float]:
    """The metrics of the usual model of ``world`` on very many patients."""
    rng = np.random.default_rng(12345)
    patients = draw_patients(rng, world, _POPULATION)
    probs = draw_models(rng, world, patients, [1.0])[0]
    return compute_metrics(patients.targets, probs, world.space) | _shares(patients, probs, world)


def _shares(patients: Patients, probs: np.ndarray, world: World) -> dict[str, float]:
    """Recall, precision and specificity of each class, by the definition."""
    predicted = predictions_of(probs, world.space)
    values: dict[str, float] = {}
    for i, name in enumerate(world.space.classes):
        if world.space.task == "multilabel":
            has, says = patients.targets[:, i] == 1, predicted[:, i]
        else:
            has, says = patients.targets == i, predicted == i
        values |= {f"recall_{name}": says[has].mean(), f"precision_{name}": has[says].mean()}
        values[f"specificity_{name}"] = (~says)[~has].mean()
    return values


def usual_positives(sample: Sample) -> Mapping[str, float]:
    """How many patients of the split have each class, on average."""
    patients = draw_patients(np.random.default_rng(12345), sample.world, _POPULATION)
    found = positive_groups(patients.targets, patients.groups, sample.world.space)
    return {name: count / _POPULATION * sample.patients for name, count in found.items()}
