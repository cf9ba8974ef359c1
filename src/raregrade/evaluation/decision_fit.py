"""Which decision rule a model is judged by, and the rules that are fitted to its validation predictions.

A rule that is chosen or fitted is chosen on validation patients, never on the test split. How far that helps on other
patients is estimated inside validation: patients are dealt to folds, the rule is fitted on the others, and the fold is
decided by it. What a rule is lies in ``raregrade.models.decisions``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.config.evaluation import EvaluateConfig
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.errors import ConfigError
from raregrade.evaluation.intervals import FEWEST_POSITIVES, positive_groups
from raregrade.evaluation.jackknife import jackknife_covariance, leave_one_out
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.naming import metric_name
from raregrade.evaluation.predictions import Predictions
from raregrade.labels import LabelSpace
from raregrade.models.decisions import THRESHOLD, Decision, decision_of

FOLDS = 5


@dataclass(frozen=True)
class FittedDecision:
    """A decision and where it comes from.

    Attributes:
        decision: the rule.
        own: the rule of the model's loss.
        how: one sentence; empty where it is the loss's own rule or one that the settings name.
        cross_validated: the metric under rules fitted on other validation patients, by name; empty where nothing was
            fitted. The metric of validation under ``decision`` itself flatters it.
    """

    decision: Decision
    own: Decision
    how: str = ""
    cross_validated: tuple[tuple[str, float], ...] = ()


def applicable_decisions(label_space: LabelSpace, config: EvaluateConfig) -> dict[str, Decision]:
    """The rules that need no fitting and fit the labels, by name: those under which losses are compared."""
    if label_space.task == "multilabel":
        return {"threshold": decision_of("threshold", label_space)}
    found = {"argmax": Decision("argmax")}
    if label_space.task == "ordinal":
        found["median"] = Decision("median")
    if config.costs is not None:
        found["expected_cost"] = Decision("expected_cost", costs=tuple(tuple(row) for row in config.costs))
    return found


def fit_decision(predictions: Predictions, config: EvaluateConfig, own: Decision, metric: str) -> FittedDecision:
    """The decision that ``config`` asks for, fitted to the validation rows of ``predictions`` where it needs fitting.

    Args:
        predictions: of one model.
        config: ``decision`` and the numbers that go with it.
        own: the rule of the model's loss.
        metric: the selection metric, by which ``best`` chooses.

    Raises:
        ConfigError: a rule that does not fit the labels, or one to be fitted without validation rows.
    """
    space = predictions.label_space
    problems = config.problems(space)
    if problems:
        raise ConfigError("\n".join(problems))
    rules = applicable_decisions(space, config)
    if config.decision == "own":
        return FittedDecision(own, own)
    if config.decision in rules:
        return FittedDecision(rules[config.decision], own)
    if "val" not in predictions.splits:
        raise ConfigError(f"evaluate.decision: {config.decision} is fitted on split val, and the predictions have none")
    if config.decision == "best":
        return _best_rule(predictions, rules, own, metric)
    return _thresholds(predictions, config, own)


def _best_rule(predictions: Predictions, rules: dict[str, Decision], own: Decision, metric: str) -> FittedDecision:
    targets, probs, groups = (predictions.targets("val"), predictions.probs("val"), predictions.groups("val"))
    space = predictions.label_space
    candidates = [own, *(rule for rule in rules.values() if rule != own)]

    def choose(rows: npt.NDArray[np.bool_]) -> Decision:
        return _choose(targets[rows], probs[rows], groups[rows], space, candidates=candidates, metric=metric)

    chosen = choose(np.ones(len(targets), dtype=np.bool_))
    folds = _folds(groups)
    decided = np.zeros(len(targets), dtype=np.int64)
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any() and not inside.all():
            decided[inside] = choose(~inside).decide(probs[inside])
    estimate = _metric_of_decided(targets, decided, space, metric, probs)
    how = f"{chosen} was chosen among {', '.join(map(str, candidates))} by {metric_name(metric)} on validation"
    if chosen == own:
        how = f"no rule was better than {own} by more than one standard error of {metric_name(metric)} on validation"
    return FittedDecision(chosen, own, how, () if estimate is None else ((metric, estimate),))


def _choose(
    targets: npt.NDArray[Any],
    probs: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    space: LabelSpace,
    *,
    candidates: list[Decision],
    metric: str,
) -> Decision:
    """The first candidate, unless another leads it by more than a standard error of the paired difference."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    own = candidates[0]
    base = compute_metrics(targets, probs, space, own).get(metric)
    if base is None:
        return own
    left_out = leave_one_out(targets, probs, groups, space, own)[metric]
    best, lead = own, 0.0
    for other in candidates[1:]:
        value = compute_metrics(targets, probs, space, other).get(metric)
        if value is None:
            continue
        gain = sign * (value - base)
        difference = leave_one_out(targets, probs, groups, space, other)[metric] - left_out
        error = math.sqrt(max(float(jackknife_covariance(difference[None])[0, 0]), 0.0))
        if gain > max(lead, error):
            best, lead = other, gain
    return best


def _metric_of_decided(
    targets: npt.NDArray[Any], decided: npt.NDArray[np.int64], space: LabelSpace, metric: str, probs: npt.NDArray[Any]
) -> float | None:
    """``metric`` of decisions that were made already; AUROC does not depend on them."""
    if metric == "auroc":
        return compute_metrics(targets, probs, space).get(metric)
    return compute_metrics(targets, np.eye(space.num_classes)[decided], space).get(metric)


def _thresholds(predictions: Predictions, config: EvaluateConfig, own: Decision) -> FittedDecision:
    """One threshold per label; one half where too few patients have the label, or lack it."""
    targets, probs, groups = (predictions.targets("val"), predictions.probs("val"), predictions.groups("val"))
    space = predictions.label_space
    positives = positive_groups(targets, groups, space)
    negatives = positive_groups(1 - targets, groups, space)
    folds = _folds(groups)
    found: list[float] = []
    few: list[str] = []
    held_out: list[tuple[float, float, float]] = []
    for i, name in enumerate(space.classes):
        known = ~np.isnan(targets[:, i])
        fit = _fit_of(config, name)
        if fit is None:
            found.append(THRESHOLD)
            continue
        if min(positives[name], negatives[name]) < FEWEST_POSITIVES:
            found.append(THRESHOLD)
            few.append(name)
            continue
        truth, scores, fold = targets[known, i] == 1, probs[known, i], folds[known]
        found.append(fit(truth, scores))
        held_out.append(_held_out(truth, scores, fold, fit))
    aim = {"f1": "the highest F1", "youden": "the highest Youden index", "sensitivity": "the wanted sensitivity"}
    how = f"thresholds fitted to {aim[config.decision]} on validation"
    unwanted = [name for name in space.classes if _fit_of(config, name) is None]
    if unwanted:
        how += f"; one half for {', '.join(unwanted)}: evaluate.sensitivity does not name it"
    if few:
        how += f"; one half for {', '.join(few)}: fewer than {FEWEST_POSITIVES} validation patients with or without it"
    means = np.array(held_out).mean(axis=0) if held_out else ()
    names = ("f1", "sensitivity", "specificity")
    return FittedDecision(
        Decision("threshold", thresholds=tuple(found)),
        own,
        how,
        tuple(zip(names, (float(v) for v in means), strict=False)),
    )


def _held_out(
    truth: npt.NDArray[np.bool_], scores: npt.NDArray[Any], folds: npt.NDArray[np.int64], fit: Fit
) -> tuple[float, float, float]:
    """F1, sensitivity and specificity of thresholds that were fitted to other patients."""
    predicted = np.zeros(len(truth), dtype=np.bool_)
    for fold in range(FOLDS):
        inside = folds == fold
        if truth[~inside].any():
            predicted[inside] = scores[inside] > fit(truth[~inside], scores[~inside])
    hits = float((predicted & truth).sum())
    f1 = 2 * hits / max(1, truth.sum() + predicted.sum())
    return f1, hits / max(1, truth.sum()), float((~predicted & ~truth).sum()) / max(1, (~truth).sum())


Fit = Callable[[npt.NDArray[np.bool_], npt.NDArray[Any]], float]


def _cuts(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Thresholds that tell neighbouring scores apart: half-way between them, and below the lowest."""
    distinct = np.unique(scores.astype(np.float64))
    return np.concatenate([[distinct[0] / 2], (distinct[1:] + distinct[:-1]) / 2])


def _by_highest(value: Callable[[Any, Any, Any, Any], Any]) -> Fit:
    """The threshold with the highest ``value`` of true and false positives; of equal ones that nearest one half."""

    def fit(truth: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
        cuts = _cuts(scores)
        above, below = np.sort(scores[truth]), np.sort(scores[~truth])
        hits = len(above) - np.searchsorted(above, cuts, side="right")
        alarms = len(below) - np.searchsorted(below, cuts, side="right")
        reached = value(hits, alarms, len(above), len(below))
        best = np.flatnonzero(reached >= reached.max() - 1e-12)
        return float(cuts[best[np.argmin(np.abs(cuts[best] - THRESHOLD))]])

    return fit


def _for_sensitivity(wanted: float) -> Fit:
    """The highest threshold at which at least ``wanted`` of the images with the label are found."""

    def fit(truth: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
        cuts, above = _cuts(scores), np.sort(scores[truth])
        found = (len(above) - np.searchsorted(above, cuts, side="right")) / len(above)
        return float(cuts[found >= wanted - 1e-12].max())

    return fit


_FITS: dict[str, Fit] = {
    "f1": _by_highest(lambda hits, alarms, positives, _: 2 * hits / (hits + alarms + positives)),
    "youden": _by_highest(lambda hits, alarms, positives, negatives: hits / positives - alarms / max(1, negatives)),
}


def _fit_of(config: EvaluateConfig, label: str) -> Fit | None:
    """How the threshold of ``label`` is found; None where it is not to be fitted."""
    if config.decision != "sensitivity":
        return _FITS[config.decision]
    wanted = config.wanted_sensitivity(label)
    return None if wanted is None else _for_sensitivity(wanted)


def _folds(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A fold for each image, the same for all images of a group; depends on the groups' names alone."""
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    order = np.argsort(np.array([int.from_bytes(d) for d in digests], dtype=np.uint64), kind="stable")
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % FOLDS
    return fold[index]
