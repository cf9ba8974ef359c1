"""The files of a comparison: JSON, tables, figures and the page. Their content is made in ``compare`` and ``words``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from raregrade.evaluation import figures
from raregrade.evaluation.candidates import SPLITS, Candidate
from raregrade.evaluation.html import figure, render
from raregrade.evaluation.naming import MEANINGS
from raregrade.evaluation.report import HISTORY, write_json
from raregrade.evaluation.table import (
    RUN_FILE,
    loss_table,
    markdown_table,
    rule_metrics,
    rule_rows,
    seed_rows,
    seed_table,
)
from raregrade.evaluation.words import (
    alarm_texts,
    heading,
    looks_line,
    models_text,
    power_line,
    sentence_on_rules,
    sentence_on_validation,
    training_is_in,
)
from raregrade.labels import LabelSpace

PAGE = "comparison.html"
METRICS, EPOCHS = "metrics.json", "epochs.csv"
COMPARISON_FILES = frozenset(
    {"comparison.json", PAGE, RUN_FILE, METRICS, EPOCHS, "table.csv", "table.md", "per_seed.csv", "figures"}
)


@dataclass(frozen=True)
class RunFacts:
    """What is known when a comparison is made and does not follow from its reports.

    The same reports give the same comparison.json anywhere and at any time, so this has a file of its own.

    Attributes:
        test_looks: comparisons that have looked at the test split, this one included; None where that is not kept.
        minutes: of one training on this dataset; None where it is unknown.
    """

    test_looks: int | None = None
    minutes: float | None = None


def write_comparison(comparison: dict[str, Any], space: LabelSpace, folder: Path, facts: RunFacts) -> None:
    """Write every file of ``comparison`` to ``folder``, which exists and is empty."""
    write_json(folder / "comparison.json", comparison)
    write_json(folder / RUN_FILE, asdict(facts))
    loss_table(comparison).to_csv(folder / "table.csv", index=False)
    seed_table(comparison).to_csv(folder / "per_seed.csv", index=False)
    (folder / "table.md").write_text(markdown_table(comparison), encoding="utf-8")
    write_json(folder / METRICS, headline_values(comparison))
    context = {
        "title": heading(comparison),
        "comparison": comparison,
        "losses": comparison["losses"],
        "selection": f"val_{comparison['selection_metric']}",
        "tested": comparison["claim"]["metric"],
        "seeds": seed_rows(comparison),
        "shown": comparison["headline"],
        "meanings": MEANINGS,
        "alarms": {loss: alarm_texts(entry["alarms"]) for loss, entry in comparison["losses"].items()},
        "power": power_line(comparison, facts.minutes),
        "looks": looks_line(comparison, facts.test_looks),
        "models": models_text(comparison),
        "training_is_in": training_is_in(comparison),
        "on_validation": sentence_on_validation(comparison),
        "rules": rule_rows(comparison),
        "rule_metrics": rule_metrics(comparison),
        "on_rules": sentence_on_rules(comparison),
        "figures": _draw(comparison, space, folder / "figures"),
    }
    (folder / PAGE).write_text(render("comparison.html.j2", context), encoding="utf-8")


def headline_values(comparison: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Loss → the metric that chose, on validation and test, the mean over seeds: for ``dvc metrics show``."""
    names = [f"{split}_{comparison['selection_metric']}" for split in SPLITS]
    return {
        loss: {name: entry["metrics"][name]["mean"] for name in names if name in entry["metrics"]}
        for loss, entry in comparison["losses"].items()
    }


def write_epochs(candidates: Mapping[str, Sequence[Candidate]], path: Path) -> None:
    """Every epoch of every training in one table, for DVC's plots.

    Columns: ``loss``, ``seed``, ``fold`` (empty without cross-validation), ``epoch``, ``train_loss``, and
    ``validation``, the value of ``metric``. No file is written where no report holds its model's history.
    """
    tables = [_epochs(c) for members in candidates.values() for c in members if (c.path / HISTORY).is_file()]
    if tables:
        pd.concat(tables, ignore_index=True).to_csv(path, index=False)


def _epochs(candidate: Candidate) -> pd.DataFrame:
    history = pd.read_csv(candidate.path / HISTORY)
    metric = next(name for name in history.columns if name.startswith("val_"))
    about = {"loss": candidate.loss, "seed": candidate.seed, "fold": candidate.fold}
    values = {name: history.get(name) for name in ("epoch", "train_loss")}
    return pd.DataFrame({**about, **values, "metric": metric.removeprefix("val_"), "validation": history[metric]})


def _draw(comparison: dict[str, Any], space: LabelSpace, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    rows = [
        {"loss": loss, "winner": loss == comparison["recommended"]["loss"], "metrics": entry["metrics"]}
        for loss, entry in comparison["losses"].items()
    ]
    selection = comparison["selection_metric"]
    names = [selection, *(m for m in comparison["headline"] if m != selection)]
    drawn = {}
    for split in SPLITS:
        path = folder / f"forest_{split}.png"
        figures.draw_forest(rows, [f"{split}_{name}" for name in names], comparison["baseline"], path)
        drawn[f"forest_{split}"] = figure(path, f"Metrics of each loss with intervals on the {split} split")
    path = folder / "class_f1.png"
    figures.draw_class_f1(rows, space.classes, "test", path)
    drawn["class_f1"] = figure(path, "F1 of each class by loss on the test split")
    return drawn
