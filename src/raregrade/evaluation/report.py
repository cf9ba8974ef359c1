"""The report on one table of predictions: metrics with intervals, tables, figures and a page, in one folder.

Knows no model: what is said about the model comes from its card. The same input gives the same bytes of JSON and
CSV: no times, no host names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config.gate import AlarmConfig
from raregrade.errors import DataError
from raregrade.evaluation import figures
from raregrade.evaluation.alarms import ModelOnSplit, find_alarms
from raregrade.evaluation.calibration import reliability
from raregrade.evaluation.decision_fit import FittedDecision
from raregrade.evaluation.html import figure, render
from raregrade.evaluation.intervals import MetricInterval, model_intervals, positive_groups
from raregrade.evaluation.metrics import (
    compute_metrics,
    confusion_matrix,
    headline_metrics,
    label_outcomes,
    predictions_of,
)
from raregrade.evaluation.naming import MEANINGS
from raregrade.evaluation.predictions import Predictions, write_predictions
from raregrade.evaluation.words import alarm_texts
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision, decided_by, default_decision

REPORTED_SPLITS = ("val", "test")
SHOWN_ERRORS = 12
_CLASS_METRICS = {
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "auroc": "AUROC",
}
HISTORY = "history.csv"
REPORT_FILES = frozenset(
    {"predictions.parquet", "metrics.json", "report.json", "report.html", "confusion.csv", HISTORY, "figures"}
)


@dataclass(frozen=True)
class Judged:
    """What is judged beside the predictions.

    Attributes:
        title: the page's heading.
        card: the model's card (model.json), with ``model`` = SHA-256 of its weights. ``{"loss": {"name", "kind":
            "external"}, "seed"}`` is enough for predictions of another program; None: loss ``title``, seed 1.
        decision: how probabilities become predictions; None: the rule of the task.
        data_warnings: what is odd about the dataset, one sentence each.
        alarms: when to raise one.
        history: the model's training, a row per epoch, as a CSV file; None where it is not known.
        confidence: of the intervals.
    """

    title: str
    card: dict[str, Any] | None = None
    decision: FittedDecision | None = None
    data_warnings: Sequence[str] = ()
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    history: Path | None = None
    confidence: float = 0.95

    def rule(self, label_space: LabelSpace) -> Decision:
        """The decision, or the task's own."""
        return default_decision(label_space) if self.decision is None else self.decision.decision


def write_report(predictions: Predictions, out: Path, judged: Judged) -> dict[str, float]:
    """Write the report folder: it replaces an earlier report at ``out`` once it is complete.

    Files: ``predictions.parquet``, ``metrics.json`` (flat: ``val_qwk``, ``test_f1_<class>``, …), ``report.json``
    (what was judged and how it was decided, intervals, alarms, per-class table), ``confusion.csv`` (``actual``,
    ``predicted``, one row per image; for ``multilabel`` one row per known label, ``present`` or ``absent``),
    ``figures/*.png``, ``report.html``, and a copy of ``judged.history``.

    Args:
        predictions: with rows of val, test or both; train rows are not judged.
        out: the folder.
        judged: what they are predictions of, and how they are decided.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: no val or test rows; ``out`` holds something else than a report.
    """
    refuse_foreign_folder(out, REPORT_FILES)
    metrics, report = judge(predictions, judged)
    splits = list(report["splits"])
    decision = judged.rule(predictions.label_space)
    with atomic_folder(out) as folder:
        write_predictions(predictions, folder / "predictions.parquet")
        write_json(folder / "metrics.json", metrics, sort=True)
        write_json(folder / "report.json", report, sort=True)
        _confusion_table(predictions, splits[-1], decision).to_csv(folder / "confusion.csv", index=False)
        if judged.history is not None:
            shutil.copyfile(judged.history, folder / HISTORY)
        pictures = _draw(predictions, splits[-1], report, decision, folder / "figures")
        page = render("report.html.j2", _page(predictions, report, metrics, decision, pictures))
        (folder / "report.html").write_text(page, encoding="utf-8")
    return metrics


def judge(predictions: Predictions, judged: Judged) -> tuple[dict[str, float], dict[str, Any]]:
    """The content of metrics.json and report.json; arguments and errors as for ``write_report``."""
    splits = [s for s in REPORTED_SPLITS if s in predictions.splits]
    if not splits:
        present = ", ".join(predictions.splits)
        raise DataError(f"no rows of split val or test to report on; the predictions hold {present}")
    space = predictions.label_space
    decision = judged.rule(space)
    metrics = {
        f"{split}_{name}": value
        for split in splits
        for name, value in compute_metrics(
            predictions.targets(split), predictions.probs(split), space, decision
        ).items()
    }
    intervals = {
        f"{split}_{name}": found
        for split in splits
        for name, found in model_intervals(
            predictions.targets(split),
            predictions.probs(split),
            predictions.groups(split),
            space,
            decision,
            confidence=judged.confidence,
        ).items()
    }
    report = {
        **_identity(judged.card, judged.title),
        "title": judged.title,
        "label_space": space.to_json(),
        "decision": decision.to_json(),
        "own_decision": decision.to_json() if judged.decision is None else judged.decision.own.to_json(),
        "decision_fit": _fit_to_json(judged.decision),
        "unit": predictions.unit,
        "data_warnings": list(judged.data_warnings),
        "assumptions": list(predictions.assumptions),
        "splits": {s: _size(predictions, s) for s in splits},
        "confidence": judged.confidence,
        "intervals": {name: asdict(found) for name, found in intervals.items()},
        "alarms": [alarm for split in splits for alarm in _alarms(predictions, split, decision, judged)],
        "classes": {s: _class_table(predictions, s, decision, metrics, intervals) for s in splits},
    }
    return metrics, report


def _fit_to_json(fitted: FittedDecision | None) -> dict[str, Any] | None:
    if fitted is None or not fitted.how:
        return None
    return {"how": fitted.how, "cross_validated": dict(fitted.cross_validated)}


def _alarms(predictions: Predictions, split: str, decision: Decision, judged: Judged) -> list[dict[str, Any]]:
    probs, space = predictions.probs(split), predictions.label_space
    model = ModelOnSplit(judged.title, probs, decision.decide(probs))
    found = find_alarms(predictions.targets(split), model, predictions.groups(split), space, judged.alarms, split=split)
    return [alarm.to_json() for alarm in found]


def refuse_foreign_folder(out: Path, own: Collection[str]) -> None:
    """Raise DataError where ``out`` holds anything but the files ``own``, as it would be lost. Hidden files may go."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder")
    foreign = sorted(p.name for p in out.glob("*") if p.name not in own and not p.name.startswith("."))
    if foreign:
        raise DataError(f"{out}: holds other files ({', '.join(foreign[:5])}), which would be lost; give a new folder")


def write_json(path: Path, value: dict[str, Any], *, sort: bool = False) -> None:
    """Write ``value`` as indented JSON; NaN is an error."""
    text = json.dumps(value, indent=2, sort_keys=sort, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _identity(card: dict[str, Any] | None, title: str) -> dict[str, Any]:
    """What was judged, from the model's card."""
    card = card or {}
    loss = card.get("loss") or {"name": title, "kind": "external"}
    return {
        "schema": 1,
        "loss": loss["name"],
        "kind": loss.get("kind", loss["name"]),
        "params": loss.get("params", {}),
        "seed": int(card.get("seed", 1)),
        "dataset": card.get("dataset"),
        "model": card.get("model"),
        "backbone": card.get("backbone"),
        "train": card.get("train"),
        "selection": card.get("selection"),
        "tuned": card.get("tuned"),
        "git_commit": card.get("git_commit"),
        "raregrade_version": __version__,
    }


def _size(predictions: Predictions, split: str) -> dict[str, int]:
    groups = predictions.groups(split)
    return {"images": len(groups), "groups": len(set(groups))}


def _class_table(
    predictions: Predictions,
    split: str,
    decision: Decision,
    metrics: dict[str, float],
    intervals: dict[str, MetricInterval],
) -> list[dict[str, Any]]:
    """Images and patients, precision, recall, F1 and AUROC a class with intervals; None where undefined.

    For ``multilabel`` also specificity, and the threshold of each label.
    """
    space = predictions.label_space
    targets, probs = predictions.targets(split), predictions.probs(split)
    positives = positive_groups(targets, predictions.groups(split), space)
    if space.task == "multilabel":
        outcomes = label_outcomes(targets, probs, space, decision)
        hits, support, predicted = outcomes[:, 1, 1], outcomes[:, 1].sum(axis=1), outcomes[:, :, 1].sum(axis=1)
        spared, without = outcomes[:, 0, 0], outcomes[:, 0].sum(axis=1)
    else:
        confusion = confusion_matrix(targets, probs, space, decision)
        hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    rows = []
    for i, name in enumerate(space.classes):
        values = {
            "precision": float(hits[i] / predicted[i]) if predicted[i] else None,
            "recall": float(hits[i] / support[i]) if support[i] else None,
            "f1": metrics.get(f"{split}_f1_{name}"),
            "auroc": metrics.get(f"{split}_auroc_{name}"),
        }
        row: dict[str, Any] = {"class": name, "support": int(support[i]), "positives": positives[name]}
        if decision.thresholds is not None:
            row["threshold"] = decision.thresholds[i]
            values["specificity"] = float(spared[i] / without[i]) if without[i] else None
        for metric, value in values.items():
            found = intervals.get(f"{split}_{metric}_{name}")
            row |= {metric: value, f"{metric}_interval": None, f"{metric}_note": None}
            if value is not None and found is not None:
                row[f"{metric}_interval"] = None if found.low is None else [found.low, found.high]
                row[f"{metric}_note"] = found.method if found.low is None else None
        rows.append(row)
    return rows


def _confusion_table(predictions: Predictions, split: str, decision: Decision) -> pd.DataFrame:
    space = predictions.label_space
    targets, probs = predictions.targets(split), predictions.probs(split)
    if space.task != "multilabel":
        names = np.array(space.classes, dtype=object)
        return pd.DataFrame({"actual": names[targets], "predicted": names[predictions_of(probs, space, decision)]})
    known = ~np.isnan(targets)
    words = np.array(["absent", "present"], dtype=object)
    return pd.DataFrame(
        {
            "actual": words[targets[known].astype(np.int64)],
            "predicted": words[predictions_of(probs, space, decision)[known].astype(np.int64)],
            "label": np.array(space.classes, dtype=object)[np.nonzero(known)[1]],
        }
    )


def _draw(
    predictions: Predictions, split: str, report: dict[str, Any], decision: Decision, folder: Path
) -> dict[str, Path]:
    """Draw what the task has: name → PNG."""
    folder.mkdir()
    space = predictions.label_space
    targets, probs = predictions.targets(split), predictions.probs(split)
    drawn = {name: folder / f"{name}.png" for name in ("per_class", "reliability")}
    figures.draw_per_class(report["classes"][split], drawn["per_class"])
    figures.draw_reliability(reliability(targets, probs, space), drawn["reliability"])
    if space.task != "multilabel":
        drawn["confusion"] = folder / "confusion.png"
        figures.draw_confusion(confusion_matrix(targets, probs, space, decision), space.classes, drawn["confusion"])
    areas = {row["class"]: row["auroc"] for row in report["classes"][split] if row["auroc"] is not None}
    if 0 < len(areas) <= figures.MAX_CURVES:
        drawn["roc"] = folder / "roc.png"
        columns = [space.classes.index(name) for name in areas]
        positive, scores = _one_against_rest(targets, probs, space.num_classes)
        figures.draw_roc(positive[:, columns], scores[:, columns], areas, drawn["roc"])
    return drawn


def _one_against_rest(
    targets: npt.NDArray[Any], probs: npt.NDArray[np.float64], num_classes: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """bool [N, K] and scores [N, K], NaN where the label is unknown."""
    if targets.ndim == 1:
        return targets[:, None] == np.arange(num_classes), probs
    return targets == 1, np.where(np.isnan(targets), np.nan, probs)


def _confident_errors(predictions: Predictions, split: str, decision: Decision) -> list[dict[str, Any]]:
    """The images that were most confidently wrong: most probable first, then by image name."""
    space = predictions.label_space
    targets, probs = predictions.targets(split), predictions.probs(split)
    images, groups = predictions.image_ids(split), predictions.groups(split)
    if space.task == "multilabel":
        wrong = ~np.isnan(targets) & (predictions_of(probs, space, decision) != (targets == 1))
        rows, labels = np.nonzero(wrong)
        surety = np.where(targets == 1, 1 - probs, probs)[rows, labels]
        actual = [
            f"{space.classes[k]} {'present' if targets[i, k] == 1 else 'absent'}"
            for i, k in zip(rows, labels, strict=True)
        ]
        guessed = ["absent" if targets[i, k] == 1 else "present" for i, k in zip(rows, labels, strict=True)]
    else:
        predicted = predictions_of(probs, space, decision)
        rows = np.flatnonzero(predicted != targets)
        surety = probs[rows, predicted[rows]]
        actual = [space.classes[targets[i]] for i in rows]
        guessed = [space.classes[predicted[i]] for i in rows]
    order = np.lexsort((images[rows].astype(str), -surety))[:SHOWN_ERRORS]
    return [
        {
            "image": images[rows[i]],
            "group": groups[rows[i]],
            "actual": actual[i],
            "predicted": guessed[i],
            "probability": float(surety[i]),
        }
        for i in order
    ]


def _page(
    predictions: Predictions,
    report: dict[str, Any],
    metrics: dict[str, float],
    decision: Decision,
    pictures: dict[str, Path],
) -> dict[str, Any]:
    splits = list(report["splits"])
    split = splits[-1]
    alternatives = {
        "confusion": f"Confusion matrix of the {split} split",
        "per_class": f"F1 and AUROC by class on the {split} split",
        "roc": f"ROC curves on the {split} split",
        "reliability": f"Reliability diagram of the {split} split",
    }
    headline = [n for n in headline_metrics(predictions.label_space) if any(f"{s}_{n}" in metrics for s in splits)]
    return {
        "title": report["title"],
        "report": report,
        "task": predictions.label_space.task,
        "split": split,
        "splits": splits,
        "headline": headline,
        "meanings": MEANINGS,
        "metrics": metrics,
        "classes": report["classes"][split],
        "class_metrics": {m: title for m, title in _CLASS_METRICS.items() if m in report["classes"][split][0]},
        "figures": {name: figure(path, alternatives[name]) for name, path in pictures.items()},
        "errors": _confident_errors(predictions, split, decision),
        "facts": _facts(report),
        "decision": decided_by(report),
        "alarms": alarm_texts(report["alarms"]),
    }


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Provenance as (name, value), without what is unknown."""
    dataset = report["dataset"] or {}
    train = report["train"] or {}
    selection = report["selection"] or {}
    values = [
        ("Loss", report["loss"] if report["kind"] == report["loss"] else f"{report['loss']} ({report['kind']})"),
        ("Loss parameters", ", ".join(f"{k} = {v}" for k, v in report["params"].items())),
        ("Seed", report["seed"]),
        ("Backbone", report["backbone"] or train.get("backbone")),
        ("Epoch", f"{selection['epoch']}, best {selection['metric']}" if "epoch" in selection else None),
        ("Dataset", dataset.get("source")),
        ("Dataset content", dataset.get("content_hash")),
        ("Dataset DVC md5", dataset.get("dvc_md5")),
        ("Model weights, SHA-256", report["model"]),
        ("Git commit", report["git_commit"]),
        ("raregrade", report["raregrade_version"]),
    ]
    return [(name, str(value)) for name, value in values if value not in (None, "")]
