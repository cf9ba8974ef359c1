"""Which loss to train with: the comparison of reports, from their predictions alone.

The winner is the loss with the best mean of the selection metric over seeds on validation; its representative is its
seed with the best validation value. The test split is only reported. Reading and refusing reports is in
``candidates``, texts and tables in ``table``, resampling in ``statistics``.
"""

from __future__ import annotations

import math
import statistics as numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config.evaluation import CompareConfig
from raregrade.errors import DataError
from raregrade.evaluation import figures
from raregrade.evaluation.candidates import SPLITS, Candidate, read_candidates
from raregrade.evaluation.html import figure, render
from raregrade.evaluation.metrics import headline_metrics
from raregrade.evaluation.naming import MEANINGS, lower_is_better
from raregrade.evaluation.report import refuse_foreign_folder, write_json
from raregrade.evaluation.statistics import Floats, bootstrap_metrics, holm, interval, p_value
from raregrade.evaluation.table import (
    advice,
    format_table,
    heading,
    loss_table,
    markdown_table,
    seed_rows,
    seed_table,
    sentence_on_test,
)
from raregrade.labels import LabelSpace

__all__ = ["compare_reports", "format_table"]

COMPARISON_FILES = frozenset({"comparison.json", "comparison.html", "table.csv", "table.md", "per_seed.csv", "figures"})
# Means of the same values in another order may differ in the last bits; that is a tie.
_TIE = 1e-12


def compare_reports(reports: Sequence[Path], config: CompareConfig, selection_metric: str, out: Path) -> dict[str, Any]:
    """Compare report folders and write the comparison folder; it replaces an earlier one at ``out`` when complete.

    Files: ``comparison.json`` (what is returned), ``table.csv`` (one row a loss), ``table.md``, ``per_seed.csv``,
    ``comparison.html``, ``figures/*.png``.

    Args:
        reports: folders made by ``write_report``, in any order.
        config: losses, seeds, baseline, resamples, confidence.
        selection_metric: a metric without split, such as ``qwk``; its value on val chooses the winner.
        out: the folder.

    Returns:
        ``selection_metric``, ``winner {loss, seed}``, ``baseline``, ``clearly_better`` (whether the winner is another
        loss than the baseline and its paired difference passes Holm's test), ``advice``, ``notes``, ``label_space``,
        ``dataset``, and for each loss ``seeds``, ``metrics {name: {mean, low, high, sd, per_seed}}`` and, except for
        the baseline, ``difference {name: {mean, low, high, p, p_holm}}`` = loss − baseline. Undefined metrics are
        absent; ``sd`` (over seeds) is None with one seed; ``low`` and ``high`` are None where resamples rarely define
        the metric.

    Raises:
        DataError: what ``read_candidates`` refuses; a selection metric that is not defined for some loss.
    """
    refuse_foreign_folder(out, COMPARISON_FILES)
    candidates, left_out = read_candidates(reports, config)
    space = candidates[config.baseline][0].predictions.label_space
    selection = f"val_{selection_metric}"
    _check_selection(candidates, config, selection)
    samples = _resample(candidates, config, space)
    losses = {loss: _loss_entry(members, samples[loss], config) for loss, members in candidates.items()}
    _add_differences(losses, samples, config)
    winner = _winner(losses, config, selection)
    comparison: dict[str, Any] = {
        "schema": 1,
        "raregrade_version": __version__,
        "selection_metric": selection_metric,
        "winner": {"loss": winner, "seed": _best_seed(losses[winner], selection)},
        "baseline": config.baseline,
        "clearly_better": _clearly_better(losses[winner], selection, config),
        "bootstrap": {"resamples": config.resamples, "confidence": config.confidence, "unit": "group"},
        "label_space": space.to_json(),
        "dataset": candidates[config.baseline][0].report.get("dataset"),
        "splits": _sizes(candidates[config.baseline][0]),
        "headline": [m for m in headline_metrics(space) if any(f"test_{m}" in e["metrics"] for e in losses.values())],
        "notes": _notes(candidates, left_out, config),
        "losses": losses,
    }
    comparison["advice"] = advice(comparison)
    with atomic_folder(out) as folder:
        _write(comparison, space, folder)
    return comparison


def _check_selection(candidates: Mapping[str, list[Candidate]], config: CompareConfig, selection: str) -> None:
    for loss in config.losses:
        for candidate in candidates[loss]:
            if selection not in candidate.metrics:
                raise DataError(
                    f"{candidate.path}: {selection} is not defined on its predictions; defined: "
                    f"{', '.join(candidate.metrics)}; set train.selection_metric to one of these"
                )


def _resample(
    candidates: Mapping[str, list[Candidate]], config: CompareConfig, space: LabelSpace
) -> dict[str, dict[str, Floats]]:
    """loss → metric with split → [R], averaged over seeds; the same draws of groups for every loss and seed."""
    found: dict[str, dict[str, Floats]] = {loss: {} for loss in candidates}
    for split in SPLITS:
        members = [c for group in candidates.values() for c in group if split in c.predictions.splits]
        if not members:
            continue
        drawn = bootstrap_metrics(
            members[0].predictions.targets(split),
            [c.predictions.probs(split) for c in members],
            members[0].predictions.groups(split),
            space,
            resamples=config.resamples,
        )
        for loss in candidates:
            rows = [i for i, c in enumerate(members) if c.loss == loss]
            if rows:
                found[loss] |= {f"{split}_{name}": values[rows].mean(axis=0) for name, values in drawn.items()}
    return found


def _loss_entry(members: Sequence[Candidate], samples: Mapping[str, Floats], config: CompareConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name in members[0].metrics:
        if not all(name in c.metrics for c in members):
            continue
        values = [c.metrics[name] for c in members]
        limits = interval(samples[name], config.confidence)
        metrics[name] = {
            "mean": math.fsum(values) / len(values),
            "low": limits.low if limits else None,
            "high": limits.high if limits else None,
            "sd": numbers.stdev(values) if len(values) > 1 else None,
            "per_seed": {str(c.seed): c.metrics[name] for c in members},
        }
    return {
        "kind": members[0].kind,
        "params": members[0].report.get("params", {}),
        "seeds": [c.seed for c in members],
        "candidate": members[0].loss in config.losses,
        "metrics": metrics,
        "difference": {},
    }


def _add_differences(
    losses: dict[str, dict[str, Any]], samples: Mapping[str, Mapping[str, Floats]], config: CompareConfig
) -> None:
    """Paired differences to the baseline; p-values adjusted over the losses, metric by metric."""
    reference = losses[config.baseline]["metrics"]
    others = [loss for loss in losses if loss != config.baseline]
    for name in reference:
        p_values = {}
        for loss in others:
            if name not in losses[loss]["metrics"]:
                continue
            differences = samples[loss][name] - samples[config.baseline][name]
            limits = interval(differences, config.confidence)
            if limits is None:
                continue
            p_values[loss] = p_value(differences)
            losses[loss]["difference"][name] = {
                "mean": losses[loss]["metrics"][name]["mean"] - reference[name]["mean"],
                "low": limits.low,
                "high": limits.high,
                "p": p_values[loss],
            }
        for loss, adjusted in holm(p_values).items():
            losses[loss]["difference"][name]["p_holm"] = adjusted


def _winner(losses: Mapping[str, dict[str, Any]], config: CompareConfig, selection: str) -> str:
    """The best mean on validation; on a tie the baseline, then the first in the order of ``config.losses``."""
    sign = -1 if lower_is_better(selection) else 1
    value = {loss: sign * losses[loss]["metrics"][selection]["mean"] for loss in config.losses}
    best = max(value.values())
    tied = [loss for loss in config.losses if best - value[loss] <= _TIE]
    return config.baseline if config.baseline in tied else tied[0]


def _best_seed(entry: Mapping[str, Any], selection: str) -> int:
    sign = -1 if lower_is_better(selection) else 1
    per_seed = entry["metrics"][selection]["per_seed"]
    return int(max(entry["seeds"], key=lambda seed: sign * per_seed[str(seed)]))


def _clearly_better(entry: Mapping[str, Any], selection: str, config: CompareConfig) -> bool:
    difference = entry["difference"].get(selection)
    if difference is None:
        return False
    side = -difference["high"] if lower_is_better(selection) else difference["low"]
    return bool(side > 0 and difference["p_holm"] <= 1 - config.confidence)


def _notes(
    candidates: Mapping[str, list[Candidate]], left_out: Sequence[Candidate], config: CompareConfig
) -> list[str]:
    """What a reader must know to trust the numbers no more than they deserve."""
    notes = []
    if len(config.seeds) == 1:
        notes.append(
            "One seed: the intervals show which patients matter, not how much another random start would change. "
            "Train with three or more seeds before relying on a small difference."
        )
    members = [c for group in candidates.values() for c in group]
    settings = [c.report.get("train") for c in members if c.report.get("train")]
    if any(s != settings[0] for s in settings):
        notes.append(
            "The models were trained with different training settings, so a difference is not the loss's alone."
        )
    external = [loss for loss in candidates if loss not in config.losses]
    if external:
        notes.append(f"Listed for reference and not a candidate to win: {', '.join(external)} (external predictions).")
    if left_out:
        names = ", ".join(f"{c.loss}/{c.seed}" for c in left_out)
        notes.append(f"Reports left out, because compare.losses and compare.seeds do not name them: {names}.")
    groups = min(size["groups"] for size in _sizes(candidates[config.baseline][0]).values())
    if groups < 30:
        notes.append(f"A split has only {groups} groups: percentile intervals are too narrow with so few.")
    return notes


def _sizes(candidate: Candidate) -> dict[str, dict[str, int]]:
    predictions = candidate.predictions
    return {
        split: {"images": len(predictions.groups(split)), "groups": len(set(predictions.groups(split)))}
        for split in predictions.splits
    }


def _write(comparison: dict[str, Any], space: LabelSpace, folder: Path) -> None:
    write_json(folder / "comparison.json", comparison)
    loss_table(comparison).to_csv(folder / "table.csv", index=False)
    seed_table(comparison).to_csv(folder / "per_seed.csv", index=False)
    (folder / "table.md").write_text(markdown_table(comparison), encoding="utf-8")
    pictures = _draw(comparison, space, folder / "figures")
    context = {
        "title": heading(comparison),
        "comparison": comparison,
        "losses": comparison["losses"],
        "selection": f"val_{comparison['selection_metric']}",
        "seeds": seed_rows(comparison),
        "shown": comparison["headline"],
        "meanings": MEANINGS,
        "sentence_on_test": sentence_on_test(comparison),
        "figures": pictures,
    }
    (folder / "comparison.html").write_text(render("comparison.html.j2", context), encoding="utf-8")


def _draw(comparison: dict[str, Any], space: LabelSpace, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    rows = [
        {"loss": loss, "winner": loss == comparison["winner"]["loss"], "metrics": entry["metrics"]}
        for loss, entry in comparison["losses"].items()
    ]
    names = [
        comparison["selection_metric"],
        *(m for m in comparison["headline"] if m != comparison["selection_metric"]),
    ]
    drawn = {}
    for split in SPLITS:
        path = folder / f"forest_{split}.png"
        figures.draw_forest(rows, [f"{split}_{name}" for name in names], comparison["baseline"], path)
        drawn[f"forest_{split}"] = figure(path, f"Metrics of each loss with intervals on the {split} split")
    path = folder / "class_f1.png"
    figures.draw_class_f1(rows, space.classes, "test", path)
    drawn["class_f1"] = figure(path, "F1 of each class by loss on the test split")
    return drawn
