"""Which loss to train with: the comparison of reports, from their predictions alone.

Validation chooses the loss: the best mean of the selection metric over seeds. Whether it is better than the baseline is
one test on the test split (``claim``), with training and patients both random (``mrmc``). The model that stands for a
loss is its seed of median validation value, since the best one is also the luckiest on the split that chose its epoch.
Reading and refusing reports is in ``candidates``, texts and tables in ``table`` and ``words``, pages in ``page``.
"""

from __future__ import annotations

import math
import statistics as numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config import CompareSection
from raregrade.errors import DataError
from raregrade.evaluation.alarms import ModelOnSplit, find_alarms
from raregrade.evaluation.candidates import SPLITS, Candidate, read_candidates
from raregrade.evaluation.claim import Claim, difference_to_json, recommended, verdict_of
from raregrade.evaluation.comparison_page import write_comparison
from raregrade.evaluation.decision_fit import applicable_decisions
from raregrade.evaluation.intervals import class_of_metric, enough_patients, positive_groups, scaled_limits
from raregrade.evaluation.metrics import headline_metrics, predictions_of
from raregrade.evaluation.mrmc import holm, mean_interval, power
from raregrade.evaluation.naming import lower_is_better
from raregrade.evaluation.paired import PairedModels
from raregrade.evaluation.report import refuse_foreign_folder
from raregrade.evaluation.words import advice

COMPARISON_FILES = frozenset({"comparison.json", "comparison.html", "table.csv", "table.md", "per_seed.csv", "figures"})
# Means of the same values in another order may differ in the last bits; that is a tie.
_TIE = 1e-12


def compare_reports(reports: Sequence[Path], section: CompareSection, out: Path) -> dict[str, Any]:
    """Compare report folders and write the comparison folder; it replaces an earlier one at ``out`` when complete.

    Files: ``comparison.json`` (what is returned), ``table.csv`` (one row a loss), ``table.md``, ``per_seed.csv``,
    ``comparison.html``, ``figures/*.png``.

    Args:
        reports: folders made by ``write_report``, in any order.
        section: losses, seeds, baseline and confidence; the selection metric without split, whose value on val chooses;
            the decision rules to compare under; when to raise an alarm.
        out: the folder.

    Returns:
        ``winner {loss, seed, decision}`` (what validation chose), ``recommended`` (the winner where the claim stands
        and no alarm is raised, else the baseline), ``claim``, ``clearly_better``, ``advice``, and for each loss
        ``seeds``, ``representative`` (a seed), ``decision``, ``alarms``, ``metrics {name: {mean, low, high, sd,
        per_seed}}``, ``rules`` and, but for the baseline, ``difference {name: {mean, low, high, se, df, p, p_holm,
        patients_only}}`` = loss - baseline. Undefined metrics are absent; ``sd`` (over seeds) is None with one seed;
        ``low`` and ``high`` are None where too few patients have the class.

    Raises:
        DataError: what ``read_candidates`` refuses; a selection metric that is not defined for some loss.
    """
    refuse_foreign_folder(out, COMPARISON_FILES)
    config = section.compare
    candidates, left_out = read_candidates(reports, config)
    reference = candidates[config.baseline][0]
    space = reference.predictions.label_space
    selection = f"val_{section.selection_metric}"
    _check_selection(candidates, section, selection)
    paired = {
        split: found for split in SPLITS if (found := PairedModels.of(candidates, split, space, config.confidence))
    }
    positives = {
        split: positive_groups(reference.predictions.targets(split), reference.predictions.groups(split), space)
        for split in reference.predictions.splits
    }
    losses = {loss: _loss_entry(loss, members, section, selection) for loss, members in candidates.items()}
    for split, models in paired.items():
        _add_metrics(losses, candidates, models, split=split, positives=positives[split], section=section)
        _add_differences(losses, models, split, config.baseline)
    winner = _winner(losses, section, selection)
    claim = _claim(paired.get("test"), winner, len(config.losses), section)
    _add_alarms(losses, candidates, section)
    _add_rules(losses, candidates, section)
    chosen = recommended(claim, {n: e["alarms"] for n, e in losses.items()}, refuse=section.alarms.refuse)
    comparison: dict[str, Any] = {
        "schema": 2,
        "raregrade_version": __version__,
        "selection_metric": section.selection_metric,
        "winner": _model_of(losses, winner),
        "recommended": _model_of(losses, chosen),
        "baseline": config.baseline,
        "claim": claim.to_json(),
        "clearly_better": claim.verdict == "better",
        "inference": {"confidence": config.confidence, "method": "obuchowski-rockette, seeds nested in losses"},
        "unit": reference.predictions.unit,
        "label_space": space.to_json(),
        "dataset": reference.report.get("dataset"),
        "splits": _sizes(reference),
        "positives": positives,
        "headline": [m for m in headline_metrics(space) if any(f"test_{m}" in e["metrics"] for e in losses.values())],
        "data_warnings": _data_warnings(candidates),
        "notes": _notes(candidates, left_out, section),
        "losses": losses,
    }
    comparison["advice"] = advice(comparison)
    with atomic_folder(out) as folder:
        write_comparison(comparison, space, folder)
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
        "seeds": [c.seed for c in members],
        "candidate": loss in section.compare.losses,
        "representative": stands_for.seed,
        "decision": stands_for.decision.to_json(),
        "tuned": stands_for.report.get("tuned"),
        "alarms": [],
        "metrics": {},
        "difference": {},
        "rules": {},
    }


def _representative(members: Sequence[Candidate], selection: str) -> Candidate:
    """The seed of median validation value, the worse of the two middle ones where the number is even.

    Of equal ones the smallest seed, as where a loss (of another program) has no validation predictions.
    """
    sign = -1.0 if lower_is_better(selection) else 1.0
    values = [sign * c.metrics.get(selection, -math.inf) for c in members]
    median = sorted(values)[(len(values) - 1) // 2]
    return min((c for c, value in zip(members, values, strict=True) if value == median), key=lambda c: c.seed)


def _add_metrics(
    losses: dict[str, dict[str, Any]],
    candidates: Mapping[str, list[Candidate]],
    models: PairedModels,
    *,
    split: str,
    positives: Mapping[str, int],
    section: CompareSection,
) -> None:
    """Mean, interval and values of each seed, of every metric that all seeds of a loss define."""
    space, confidence = models.space, section.compare.confidence
    for loss, entry in losses.items():
        members = candidates[loss]
        for name in models.names:
            if not all(f"{split}_{name}" in c.metrics for c in members):
                continue
            values = models.values(name, loss)
            estimate = mean_interval(
                values, models.covariance(name, [loss]), case_df=models.case_df(name, loss), confidence=confidence
            )
            limits = None
            if enough_patients(name, positives, space):
                limits = scaled_limits(name, estimate.mean, estimate.standard_error, estimate.df, confidence)
            of_class = class_of_metric(name, space)
            entry["metrics"][f"{split}_{name}"] = {
                "mean": estimate.mean,
                "low": None if limits is None else limits[0],
                "high": None if limits is None else limits[1],
                "sd": numbers.stdev(values) if len(members) > 1 else None,
                "per_seed": {str(c.seed): value for c, value in zip(members, values, strict=True)},
                "positives": None if of_class is None else positives[of_class],
            }


def _add_differences(losses: dict[str, dict[str, Any]], models: PairedModels, split: str, baseline: str) -> None:
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


def _winner(losses: Mapping[str, dict[str, Any]], section: CompareSection, selection: str) -> str:
    """The best mean on validation; on a tie the baseline, then the first in the order of ``compare.losses``."""
    config = section.compare
    sign = -1 if lower_is_better(selection) else 1
    value = {loss: sign * losses[loss]["metrics"][selection]["mean"] for loss in config.losses}
    best = max(value.values())
    tied = [loss for loss in config.losses if best - value[loss] <= _TIE]
    return config.baseline if config.baseline in tied else tied[0]


def _claim(models: PairedModels | None, winner: str, losses: int, section: CompareSection) -> Claim:
    metric, baseline, confidence = section.selection_metric, section.compare.baseline, section.compare.confidence
    difference = reach = None
    if winner != baseline and models is not None and models.defined(metric, [winner, baseline]):
        difference = models.difference(metric, winner, baseline)
        seeds = (len(models.rows(winner)), len(models.rows(baseline)))
        df = models.case_df(metric, winner, baseline)
        reach = power(difference, seeds, case_df=df, confidence=confidence)
    verdict = verdict_of(winner, baseline, difference, metric=f"test_{metric}", confidence=confidence, losses=losses)
    return Claim(f"test_{metric}", winner, baseline, verdict, difference, reach)


def _add_alarms(
    losses: dict[str, dict[str, Any]], candidates: Mapping[str, list[Candidate]], section: CompareSection
) -> None:
    """Of the model that stands for each loss, against the one that stands for the baseline."""
    baseline = section.compare.baseline

    def of(loss: str) -> Candidate:
        return next(c for c in candidates[loss] if c.seed == losses[loss]["representative"])

    for loss, entry in losses.items():
        own, other = of(loss), of(baseline)
        for split in own.predictions.splits:
            reference = None
            if loss != baseline and split in other.predictions.splits:
                reference = _on_split(other, split, baseline)
            entry["alarms"] += [
                alarm.to_json()
                for alarm in find_alarms(
                    own.predictions.targets(split),
                    _on_split(own, split, loss),
                    own.predictions.groups(split),
                    own.predictions.label_space,
                    section.alarms,
                    split=split,
                    reference=reference,
                )
            ]


def _on_split(candidate: Candidate, split: str, name: str) -> ModelOnSplit:
    probs = candidate.predictions.probs(split)
    return ModelOnSplit(name, probs, predictions_of(probs, candidate.predictions.label_space, candidate.decision))


def _add_rules(
    losses: dict[str, dict[str, Any]], candidates: Mapping[str, list[Candidate]], section: CompareSection
) -> None:
    """Each loss under each decision rule, and against the baseline under the same one: what the rule does for all."""
    space = next(iter(candidates.values()))[0].predictions.label_space
    rules = applicable_decisions(space, section.evaluate)
    if len(rules) < 2:
        return
    baseline, confidence = section.compare.baseline, section.compare.confidence
    for rule, decision in rules.items():
        for split in SPLITS:
            models = PairedModels.of(candidates, split, space, confidence, decision=decision)
            if models is None:
                continue
            for loss, entry in losses.items():
                if not models.rows(loss):
                    continue
                found = entry["rules"].setdefault(rule, {"metrics": {}, "difference": {}})
                for name in headline_metrics(space):
                    if name.startswith("auroc") or not models.defined(name, [loss]):
                        continue
                    found["metrics"][f"{split}_{name}"] = float(np.mean(models.values(name, loss)))
                    if loss != baseline and models.defined(name, [loss, baseline]):
                        difference = models.difference(name, loss, baseline)
                        found["difference"][f"{split}_{name}"] = difference_to_json(difference)


def _model_of(losses: Mapping[str, dict[str, Any]], loss: str) -> dict[str, Any]:
    entry = losses[loss]
    return {"loss": loss, "seed": entry["representative"], "decision": entry["decision"]}


def _data_warnings(candidates: Mapping[str, list[Candidate]]) -> list[str]:
    """What was odd about the data or was assumed to read predictions, each once."""
    members = [c for group in candidates.values() for c in group]
    return list(
        dict.fromkeys(
            text for c in members for text in (*c.report.get("data_warnings", ()), *c.report.get("assumptions", ()))
        )
    )


def _notes(
    candidates: Mapping[str, list[Candidate]], left_out: Sequence[Candidate], section: CompareSection
) -> list[str]:
    """What a reader must know to trust the numbers no more than they deserve."""
    config, notes = section.compare, []
    members = [c for group in candidates.values() for c in group]
    settings = [c.report.get("train") for c in members if c.report.get("train")]
    if any(s != settings[0] for s in settings):
        notes.append(
            "The models were trained with different training settings, so a difference is not the loss's alone."
        )
    notes += _notes_on_tuning(candidates, section)
    external = [loss for loss in candidates if loss not in config.losses]
    if external:
        notes.append(f"Listed for reference and not a candidate to win: {', '.join(external)} (external predictions).")
    if left_out:
        names = ", ".join(f"{c.loss}/{c.seed}" for c in left_out)
        notes.append(f"Reports left out, because compare.losses and compare.seeds do not name them: {names}.")
    return notes


def _notes_on_tuning(candidates: Mapping[str, list[Candidate]], section: CompareSection) -> list[str]:
    """A tuned loss beside an untuned baseline was given more trials; a study that found nothing better is said so."""
    config, notes = section.compare, []
    tuned = {loss: c[0].report["tuned"] for loss, c in candidates.items() if c[0].report.get("tuned")}
    if tuned and config.baseline not in tuned:
        notes.append(
            f"{', '.join(tuned)}: tuned, and compared with {config.baseline} as it stands in the settings. A fair "
            f"comparison gives the baseline as many trials: set compare.baseline to {config.baseline}-tuned."
        )
    for loss, study in tuned.items():
        if not study.get("better"):
            notes.append(f"{loss}: its study did not find better settings than those in params.yaml.")
    if tuned:
        notes.append("Studies saw the validation split, so tuned losses look better there than they are.")
    return notes


def _sizes(candidate: Candidate) -> dict[str, dict[str, int]]:
    predictions = candidate.predictions
    return {
        split: {"images": len(predictions.groups(split)), "groups": len(set(predictions.groups(split)))}
        for split in predictions.splits
    }
