"""How often the comparison claims, where nothing is better and where something is: simulated studies.

A study is what a user does: train each loss with several seeds, choose the loss by validation, test it once against
the baseline on the test split. The statistics are raregrade's own (``paired``, ``mrmc``, ``claim``); only the trained
models and the patients are drawn, so that the truth is known.

Shape legend: M models, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from verdict_worlds import Patients, World, draw_models, draw_patients, draw_scales

from raregrade.evaluation.claim import verdict_of
from raregrade.evaluation.jackknife import leave_one_out
from raregrade.evaluation.limits import scaled_limits
from raregrade.evaluation.metrics import (
    compute_metrics,
    counts_per_group,
    headline_metrics,
    metrics_of_counts,
    predictions_of,
)
from raregrade.evaluation.mrmc import Difference
from raregrade.evaluation.naming import lower_is_better
from raregrade.evaluation.paired import PairedModels

CONFIDENCE = 0.95
SELECTION = {"ordinal": "qwk", "multiclass": "macro_f1", "multilabel": "auroc"}


@dataclass(frozen=True)
class Study:
    """One row of the table.

    Attributes:
        world: the kind of data.
        patients: of the test split, and of the validation split.
        seeds: of the baseline and of every other loss.
        spread: of the luck of training of the baseline and of every other loss, see ``verdict_worlds``.
        losses: how many, the baseline included.
        gain: how much better the last loss is (0: none is).
    """

    world: World
    patients: int
    seeds: tuple[int, int]
    spread: tuple[float, float]
    losses: int = 2
    gain: float = 0.0


@dataclass(frozen=True)
class Found:
    """What one repetition of a study found.

    Attributes:
        claimed: ``better`` or ``worse``, after the choice by validation; None where nothing was claimed.
        differences: of the last loss to the baseline on test, by headline metric.
        mean: of the baseline's selection metric over its seeds, on test.
        limits: of the interval of that mean, as the comparison's page has it; None where it has none.
        detectable: the difference of the selection metric that the study could show; None where no loss is better.
    """

    claimed: str | None
    differences: Mapping[str, Difference]
    mean: float
    limits: tuple[float, float] | None
    detectable: float | None


def repeat(study: Study, times: int, seed: int) -> list[Found]:
    """``times`` repetitions with fresh patients and fresh trainings."""
    rng = np.random.default_rng(seed)
    return [run(rng, study) for _ in range(times)]


def run(rng: np.random.Generator, study: Study) -> Found:
    """One study: draw, choose by validation, test once."""
    world, metric = study.world, SELECTION[study.world.space.task]
    names = [f"loss {i}" for i in range(study.losses)]
    gains = [0.0] * (study.losses - 1) + [study.gain]
    scales = {
        name: draw_scales(rng, study.seeds[i > 0], study.spread[i > 0], gain)
        for i, (name, gain) in enumerate(zip(names, gains, strict=True))
    }
    chosen = _chosen(rng, study, scales, metric)
    test = _paired(rng, study, {name: scales[name] for name in dict.fromkeys((names[0], chosen, names[-1]))})
    differences = {
        name: test.difference(name, names[-1], names[0])
        for name in headline_metrics(world.space)
        if test.defined(name, [names[0], names[-1]])
    }
    found = test.difference(metric, chosen, names[0]) if test.defined(metric, [names[0], chosen]) else None
    verdict = verdict_of(chosen, names[0], found, metric=metric, confidence=CONFIDENCE, losses=study.losses)
    reach = test.power(metric, names[-1], names[0]).detectable if study.gain and metric in differences else None
    estimate = test.estimate(metric, names[0])
    limits = scaled_limits(metric, estimate.mean, estimate.standard_error, estimate.df, CONFIDENCE)
    return Found(verdict if verdict in ("better", "worse") else None, differences, estimate.mean, limits, reach)


def repeat_all(studies: Sequence[Study], times: Sequence[int], jobs: int) -> Iterator[list[Found]]:
    """``repeat`` of each study, in processes; the numbers do not depend on ``jobs``."""
    arguments = (studies, times, range(len(studies)))
    if jobs == 1:
        yield from map(repeat, *arguments)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(repeat, *arguments)


def _chosen(rng: np.random.Generator, study: Study, scales: Mapping[str, np.ndarray], metric: str) -> str:
    """The loss with the best mean on validation."""
    patients = draw_patients(rng, study.world, study.patients)
    sign = -1 if lower_is_better(metric) else 1
    means = {}
    for name, own in scales.items():
        probs = draw_models(rng, study.world, patients, own)
        means[name] = sign * float(np.mean([_value(patients, p, study.world, metric) for p in probs]))
    return max(means, key=lambda name: (not np.isnan(means[name]), means[name]))


def _value(patients: Patients, probs: np.ndarray, world: World, metric: str) -> float:
    """The metric of one model; without ranking the images where it only counts them."""
    if metric.startswith("auroc"):
        return compute_metrics(patients.targets, probs, world.space).get(metric, np.nan)
    one = np.zeros(len(patients.targets), dtype=np.int64)
    counts = counts_per_group(patients.targets, predictions_of(probs, world.space), one, 1, world.space)
    return float(metrics_of_counts(counts, world.space)[metric][0])


def _paired(rng: np.random.Generator, study: Study, scales: Mapping[str, np.ndarray]) -> PairedModels:
    """The models of some losses on one test split, as the comparison holds them."""
    space = study.world.space
    patients = draw_patients(rng, study.world, study.patients)
    owners, metrics, left_out = [], [], []
    for name, own in scales.items():
        for probs in draw_models(rng, study.world, patients, own):
            owners.append(name)
            metrics.append(compute_metrics(patients.targets, probs, space))
            left_out.append(leave_one_out(patients.targets, probs, patients.groups, space))
    return PairedModels(tuple(owners), tuple(metrics), tuple(left_out), space, CONFIDENCE)
