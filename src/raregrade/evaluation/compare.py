"""Which loss to train with: the comparison of reports, from their predictions alone.

Validation chooses the loss: the best mean of the selection metric over its models. Whether it is better than the
baseline is one test on the test split (``claim``), with training and patients both random (``mrmc``). The model that
stands for a loss is that of median validation value, since the best one is also the luckiest on the split that chose
its epoch. Reading and refusing reports is in ``candidates`` and ``folds``, tests between losses in ``paired``, what a
reader should know beside the numbers in ``notes``, texts and tables in ``words`` and ``table``, files in
``comparison_page``.
"""

from __future__ import annotations

import math
import statistics as numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config import CompareSection
from raregrade.errors import DataError
from raregrade.evaluation.alarms import find_alarms
from raregrade.evaluation.candidates import SPLITS, Candidate, read_candidates
from raregrade.evaluation.claim import claim_of, difference_to_json, recommended
from raregrade.evaluation.comparison_page import COMPARISON_FILES, EPOCHS, RunFacts, write_comparison, write_epochs
from raregrade.evaluation.decision_fit import applicable_decisions
from raregrade.evaluation.intervals import class_of_metric, enough_patients, positive_groups
from raregrade.evaluation.limits import scaled_limits
from raregrade.evaluation.looks import Look
from raregrade.evaluation.metrics import headline_metrics
from raregrade.evaluation.mrmc import holm
from raregrade.evaluation.naming import lower_is_better
from raregrade.evaluation.notes import data_warnings, notes, objection
from raregrade.evaluation.paired import PairedModels, SplitModels, models_of
from raregrade.evaluation.report import refuse_foreign_folder
from raregrade.evaluation.rows import SplitRows
from raregrade.evaluation.words import advice
from raregrade.labels import LabelSpace

# Means of the same values in another order may differ in the last bits; that is a tie.
_TIE = 1e-12


def compare_reports(
    reports: Sequence[Path],
    section: CompareSection,
    out: Path,
    facts: Callable[[Look, dict[str, Any] | None], RunFacts] | None = None,
) -> dict[str, Any]:
    """Compare report folders and write the comparison folder; it replaces an earlier one at ``out`` when complete.

    Args:
        reports: folders made by ``write_report``, in any order.
        section, out, facts: as for ``compare_candidates``.

    Returns:
        What ``compare_candidates`` returns.

    Raises:
        DataError: what ``read_candidates`` refuses; a selection metric that is not defined for some loss.
    """
    refuse_foreign_folder(out, COMPARISON_FILES)
    candidates, left_out = read_candidates(reports, section.compare)
    return compare_candidates(candidates, left_out, section, out, facts)


def compare_candidates(
    candidates: Mapping[str, list[Candidate]],
    left_out: Sequence[Candidate],
    section: CompareSection,
    out: Path,
    facts: Callable[[Look, dict[str, Any] | None], RunFacts] | None = None,
) -> dict[str, Any]:
    """Compare candidates that were read and checked, and write the comparison folder.

    Files: ``comparison.json`` (what is returned), ``table.csv`` (one row per loss), ``table.md``, ``per_seed.csv``,
    ``comparison.html``, ``figures/*.png``, ``metrics.json`` (headline metrics of each loss), ``epochs.csv`` (every
    epoch of every training), and ``run.json``: what is known of this run and is no result.

    Args:
        candidates: loss → its models.
        left_out: reports that were given and are not compared.
        section: losses, seeds, baseline and confidence; the selection metric without split, whose value on val chooses;
            the decision rules to compare under; when to raise an alarm.
        out: the folder.
        facts: called once the comparison is made, with the look at the test split that it is and the dataset.

    Returns:
        ``winner {loss, seed, decision}`` (what validation chose), ``recommended`` (the winner where the claim stands
        and no alarm is raised, else the baseline), ``claim``, ``clearly_better``, ``advice``, and for each loss
        ``seeds``, ``representative`` (a seed), ``decision``, ``alarms``, ``metrics {name: {mean, low, high, sd,
        per_seed}}``, ``rules`` and, but for the baseline, ``difference {name: {mean, low, high, se, df, p, p_holm,
        patients_only}}`` = loss - baseline. Undefined metrics are absent; ``sd`` (over models) is None with one;
        ``low`` and ``high`` are None where too few patients have the class. ``folds`` is the number of folds of
        cross-validation, and keys of ``per_seed`` are then ``seed/fold``; None for the fixed split.

    Raises:
        DataError: a selection metric that is not defined for some loss.
    """
    config = section.compare
    members = [candidate for group in candidates.values() for candidate in group]
    reference = candidates[config.baseline]
    space = reference[0].predictions.label_space
    selection = f"val_{section.selection_metric}"
    _check_selection(candidates, section, selection)
    models = {
        split: found
        for split in SPLITS
        if (found := models_of(candidates, split, space, config.confidence)) is not None
    }
    rows = {
        split: SplitRows.of(reference, reference[0].seed, split)
        for split in models
        if split in reference[0].predictions.splits
    }
    positives = {split: positive_groups(of.targets, of.groups, space) for split, of in rows.items()}
    losses = {loss: _loss_entry(loss, group, section, selection) for loss, group in candidates.items()}
    for split, of_split in models.items():
        _add_metrics(losses, candidates, of_split, split=split, positives=positives.get(split, {}), section=section)
        _add_differences(losses, of_split, split, config.baseline)
    chosen = _best_on_validation(losses, config.losses, selection, first=config.baseline)
    others = [loss for loss in config.losses if loss != config.baseline]
    following = _best_on_validation(losses, others, selection) if chosen == config.baseline and others else None
    test = models.get("test")
    assert isinstance(test, PairedModels)  # every report has a test split
    claim = claim_of(
        test,
        chosen,
        config.baseline,
        following,
        metric=section.selection_metric,
        objection=objection(candidates, chosen, config.baseline),
    )
    _add_alarms(losses, candidates, section)
    _add_rules(losses, candidates, section, space)
    alarms = {loss: entry["alarms"] for loss, entry in losses.items()}
    comparison: dict[str, Any] = {
        "schema": 2,
        "raregrade_version": __version__,
        "selection_metric": section.selection_metric,
        "winner": _model_of(losses, chosen),
        "recommended": _model_of(losses, recommended(claim, alarms, refuse=section.alarms.refuse)),
        "baseline": config.baseline,
        "claim": claim.to_json(),
        "clearly_better": claim.verdict == "better",
        "inference": {"confidence": config.confidence, "method": "obuchowski-rockette, seeds nested in losses"},
        "folds": len({candidate.fold for candidate in members}) if members[0].fold is not None else None,
        "unit": members[0].predictions.unit,
        "label_space": space.to_json(),
        "dataset": reference[0].report.get("dataset"),
        "splits": {split: of.sizes() for split, of in rows.items()},
        "positives": positives,
        "headline": [m for m in headline_metrics(space) if any(f"test_{m}" in e["metrics"] for e in losses.values())],
        "data_warnings": data_warnings(members),
        "notes": notes(candidates, left_out, config),
        "losses": losses,
    }
    comparison["advice"] = advice(comparison)
    known = RunFacts() if facts is None else facts(Look.of(candidates), comparison["dataset"])
    with atomic_folder(out) as folder:
        write_comparison(comparison, space, folder, known)
        write_epochs(candidates, folder / EPOCHS)
    return comparison


def _check_selection(candidates: Mapping[str, list[Candidate]], section: CompareSection, selection: str) -> None:
    for loss in section.compare.losses:
        for candidate in candidates[loss]:
            if selection not in candidate.metrics:
                raise DataError(
                    f"{candidate.path}: {selection} is not defined on its predictions; defined: "
                    f"{', '.join(candidate.metrics)}; set train.selection_metric to one of these"
                )


def _loss_entry(loss: str, members: Sequence[Candidate], section: CompareSection, selection: str) -> dict[str, Any]:
    stands_for = _representative(members, selection)
    return {
        "kind": members[0].kind,
        "params": members[0].report.get("params", {}),
        "seeds": list(dict.fromkeys(c.seed for c in members)),
        "candidate": loss in section.compare.losses,
        "representative": stands_for.seed,
        "representative_fold": stands_for.fold,
        "decision": stands_for.decision.to_json(),
        "tuned": stands_for.report.get("tuned"),
        "alarms": [],
        "metrics": {},
        "difference": {},
        "rules": {},
    }


def _representative(members: Sequence[Candidate], selection: str) -> Candidate:
    """The model of median validation value, the worse of the two middle ones where the number is even.

    Of equal ones that of the smallest seed, as where a loss (of another program) has no validation predictions.
    """
    sign = -1.0 if lower_is_better(selection) else 1.0
    values = [sign * c.metrics.get(selection, -math.inf) for c in members]
    median = sorted(values)[(len(values) - 1) // 2]
    return min((c for c, value in zip(members, values, strict=True) if value == median), key=lambda c: c.seed)


def _add_metrics(
    losses: dict[str, dict[str, Any]],
    candidates: Mapping[str, list[Candidate]],
    models: SplitModels,
    *,
    split: str,
    positives: Mapping[str, int],
    section: CompareSection,
) -> None:
    """Mean, interval and values of each model, of every metric that all models of a loss define."""
    confidence = section.compare.confidence
    space = next(iter(candidates.values()))[0].predictions.label_space
    for loss, entry in losses.items():
        members = candidates[loss]
        for name in models.names:
            if not all(f"{split}_{name}" in c.metrics for c in members):
                continue
            values = models.values(name, loss)
            estimate = models.estimate(name, loss)
            limits = None
            if enough_patients(name, positives, space):
                limits = scaled_limits(name, estimate.mean, estimate.standard_error, estimate.df, confidence)
            of_class = class_of_metric(name, space)
            entry["metrics"][f"{split}_{name}"] = {
                "mean": estimate.mean,
                "low": None if limits is None else limits[0],
                "high": None if limits is None else limits[1],
                "sd": numbers.stdev(values) if len(members) > 1 else None,
                "per_seed": {c.model: value for c, value in zip(members, values, strict=True)},
                "positives": None if of_class is None else positives[of_class],
                "selected_on": split == "val",
            }


def _add_differences(losses: dict[str, dict[str, Any]], models: SplitModels, split: str, baseline: str) -> None:
    """Differences to the baseline; p-values adjusted over the losses, metric by metric."""
    for name in models.names:
        key = f"{split}_{name}"
        p_values: dict[str, float] = {}
        for loss, entry in losses.items():
            if loss == baseline or key not in entry["metrics"] or key not in losses[baseline]["metrics"]:
                continue
            found = models.difference(name, loss, baseline)
            entry["difference"][key] = {**difference_to_json(found), "p_holm": None}
            if found.p is not None:
                p_values[loss] = found.p
        for loss, adjusted in holm(p_values).items():
            losses[loss]["difference"][key]["p_holm"] = adjusted


def _best_on_validation(
    losses: Mapping[str, dict[str, Any]], among: Sequence[str], selection: str, first: str | None = None
) -> str:
    """The best mean on validation; on a tie ``first``, then the first in the order of ``among``."""
    sign = -1 if lower_is_better(selection) else 1
    value = {loss: sign * losses[loss]["metrics"][selection]["mean"] for loss in among}
    best = max(value.values())
    tied = [loss for loss in among if best - value[loss] <= _TIE]
    return first if first in tied else tied[0]


def _add_alarms(
    losses: dict[str, dict[str, Any]], candidates: Mapping[str, list[Candidate]], section: CompareSection
) -> None:
    """Of the model that stands for each loss, against the one that stands for the baseline.

    Over folds, validation is judged by what the models of the seed decide: each class's recall needs no common scale of
    scores, AUROC does.
    """
    baseline = section.compare.baseline

    def standing(loss: str) -> list[Candidate]:
        entry = losses[loss]
        own = [c for c in candidates[loss] if c.seed == entry["representative"]]
        return sorted(own, key=lambda c: c.fold != entry["representative_fold"])

    for loss, entry in losses.items():
        own, other = standing(loss), standing(baseline)
        for split in own[0].predictions.splits:
            rows = _rows(own, split)
            reference = None
            if loss != baseline and split in other[0].predictions.splits:
                reference = _rows(other, split).model(baseline)
            found = find_alarms(
                rows.targets,
                rows.model(loss),
                rows.groups,
                own[0].predictions.label_space,
                section.alarms,
                split=split,
                reference=reference,
            )
            scaled = split == "test" or own[0].fold is None
            entry["alarms"] += [a.to_json() for a in found if scaled or a.kind != "auroc_below_chance"]


def _rows(members: Sequence[Candidate], split: str) -> SplitRows:
    if split == "val":
        members = sorted(members, key=lambda c: -1 if c.fold is None else c.fold)
    return SplitRows.of(members, members[0].seed, split)


def _add_rules(
    losses: dict[str, dict[str, Any]],
    candidates: Mapping[str, list[Candidate]],
    section: CompareSection,
    space: LabelSpace,
) -> None:
    """Each loss under each decision rule, and against the baseline under the same one: what the rule does for all."""
    rules = applicable_decisions(space, section.evaluate)
    if len(rules) < 2:
        return
    baseline = section.compare.baseline
    names = [name for name in headline_metrics(space) if not name.startswith("auroc")]
    for rule, decision in rules.items():
        for split in SPLITS:
            models = models_of(candidates, split, space, section.compare.confidence, decision)
            if models is None:
                continue
            for loss, entry in losses.items():
                found = entry["rules"].setdefault(rule, {"metrics": {}, "difference": {}})
                for name in names:
                    if not models.defined(name, [loss]):
                        continue
                    found["metrics"][f"{split}_{name}"] = float(np.mean(models.values(name, loss)))
                    if loss != baseline and models.defined(name, [baseline]):
                        difference = models.difference(name, loss, baseline)
                        found["difference"][f"{split}_{name}"] = difference_to_json(difference)


def _model_of(losses: Mapping[str, dict[str, Any]], loss: str) -> dict[str, Any]:
    entry = losses[loss]
    return {"loss": loss, "seed": entry["representative"], "decision": entry["decision"]}
