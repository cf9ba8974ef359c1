"""A comparison as tables: for the terminal, as CSV and as Markdown.

Works on the content of comparison.json alone and imports nothing heavy, so that a command can print it at once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raregrade.evaluation.naming import metric_name, signed
from raregrade.evaluation.words import (
    advice,
    cell,
    gap,
    looks_line,
    models_text,
    p_text,
    power_line,
    sentence_on_rules,
    sentence_on_validation,
    training_is_in,
)

if TYPE_CHECKING:
    import pandas as pd


# Beside comparison.json: what is known of the run that made it, and does not follow from its reports.
RUN_FILE = "run.json"
# The mark, the loss, the selection metric on both splits, and the difference from the baseline.
_ALWAYS_SHOWN = 5


def format_summary(comparison: dict[str, Any], facts: Mapping[str, Any] | None = None, width: int | None = None) -> str:
    """What was odd about the data, the table, then the verdict with its power.

    Args:
        comparison: content of comparison.json.
        facts: content of run.json; None where there is none.
        width: of the terminal, into which all of it is fitted; None changes nothing.
    """
    facts = facts or {}
    warnings = [f"warning: {text}" for text in comparison["data_warnings"]]
    last = [
        advice(comparison),
        power_line(comparison, facts.get("minutes")),
        sentence_on_rules(comparison),
        looks_line(comparison, facts.get("test_looks")),
    ]
    table = format_table(comparison, width)
    if width is not None:
        warnings, last = [_wrap(text, width) for text in warnings], [_wrap(text, width) for text in last]
    return "\n\n".join(part for part in ("\n".join(warnings), table, *last) if part)


def format_table(comparison: dict[str, Any], width: int | None = None) -> str:
    """The comparison as an aligned table for a terminal: plain ASCII but for names, no trailing newline.

    Where a ``width`` is given and the table is wider, it goes without its last metrics, which are in table.csv.
    """
    selection = comparison["selection_metric"]
    test = f"test_{selection}"
    columns = [f"val_{selection}", test, *(f"test_{m}" for m in _shown(comparison, 3)[1:])]
    heads = ["", "loss", metric_name(columns[0]) + " (chose)", metric_name(test), f"vs {comparison['baseline']}, test"]
    heads += [metric_name(name) for name in columns[2:]]
    rows = []
    for loss, entry in comparison["losses"].items():
        mark = "*" if loss == comparison["recommended"]["loss"] else ""
        mark += "!" if entry["alarms"] else ""
        cells = [cell(entry["metrics"].get(name), with_bounds=i == 1) for i, name in enumerate(columns)]
        rows.append([mark, loss, cells[0], cells[1], _gap(comparison, loss, test), *cells[2:]])
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    while width is not None and sum(widths) + 2 * len(widths) - 2 > width and len(widths) > _ALWAYS_SHOWN:
        widths.pop()
    heads, rows = heads[: len(widths)], [row[: len(widths)] for row in rows]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    legend = _legend(comparison, "* recommended", "! raises an alarm")
    return "\n".join([*lines, "", legend if width is None else _wrap(legend, width)])


def _wrap(text: str, width: int) -> str:
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.splitlines()
    )


def markdown_table(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown document: verdict, tables over losses and over decision rules, notes."""
    selection = comparison["selection_metric"]
    test = f"test_{selection}"
    columns = [f"val_{selection}", *(f"test_{m}" for m in comparison["headline"])]
    heads = ["Loss", f"{metric_name(columns[0])} (chose)", f"{metric_name(test)} − {comparison['baseline']}"]
    heads += [metric_name(name) for name in columns[1:]]
    sentences = [comparison["advice"], power_line(comparison), sentence_on_validation(comparison)]
    lines = [part for text in sentences if text for part in (text, "")]
    lines += [f"**Data:** {text}\n" for text in comparison["data_warnings"]]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for loss, entry in comparison["losses"].items():
        name = f"**{_escape(loss)}**" if loss == comparison["recommended"]["loss"] else _escape(loss)
        cells = [cell(entry["metrics"].get(column)) for column in columns]
        lines.append(_line([name, cells[0], _gap(comparison, loss, test), *cells[1:]]))
    lines += ["", _legend(comparison, "Bold: recommended"), *_rules_table(comparison)]
    lines += [f"\n{note}" for note in comparison["notes"]]
    return "\n".join(lines) + "\n"


def rule_rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per loss and decision rule: metrics on test, and the difference to the baseline under the same rule."""
    test = f"test_{comparison['selection_metric']}"
    return [
        {
            "loss": loss,
            "rule": rule,
            "own": rule == entry["decision"]["rule"],
            "metrics": found["metrics"],
            "difference": found["difference"].get(test),
        }
        for loss, entry in comparison["losses"].items()
        for rule, found in entry["rules"].items()
    ]


def rule_metrics(comparison: dict[str, Any]) -> list[str]:
    """The metrics, with split, that a decision rule can change."""
    return [f"test_{m}" for m in comparison["headline"] if not m.startswith("auroc")]


def loss_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """One row per loss: mean, interval and spread of every headline metric, and the difference to the baseline."""
    import pandas as pd  # noqa: PLC0415

    rows = []
    for loss, entry in comparison["losses"].items():
        row: dict[str, Any] = {
            "loss": loss,
            "chosen": loss == comparison["winner"]["loss"],
            "recommended": loss == comparison["recommended"]["loss"],
            "seeds": len(entry["seeds"]),
            "alarms": "; ".join(alarm["text"] for alarm in entry["alarms"]),
        }
        for name in (f"{split}_{metric}" for split in ("val", "test") for metric in comparison["headline"]):
            value, difference = entry["metrics"].get(name, {}), entry["difference"].get(name, {})
            row |= {name: value.get("mean")} | {f"{name}_{key}": value.get(key) for key in ("low", "high", "sd")}
            row |= {f"{name}_difference": difference.get("mean")}
            row |= {f"{name}_difference_{key}": difference.get(key) for key in ("low", "high", "p", "p_holm")}
        rows.append(row)
    return pd.DataFrame(rows)


def seed_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """``seed_rows`` as a table; empty where a metric is undefined."""
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(seed_rows(comparison))


def seed_rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per loss and seed, and over folds one per fold: every metric that is defined."""
    rows = []
    for loss, entry in comparison["losses"].items():
        for model in dict.fromkeys(model for value in entry["metrics"].values() for model in value["per_seed"]):
            seed, _, fold = model.partition("/")
            row: dict[str, Any] = {"loss": loss, "seed": int(seed)} | ({"fold": int(fold)} if fold else {})
            rows.append(row | {name: value["per_seed"][model] for name, value in entry["metrics"].items()})
    return rows


def _rules_table(comparison: dict[str, Any]) -> list[str]:
    rows = rule_rows(comparison)
    if not rows:
        return []
    metrics = rule_metrics(comparison)
    heads = ["Loss", "Decided by", *map(metric_name, metrics), f"− {comparison['baseline']}, same rule"]
    lines = ["", "Each loss under each decision rule (own: the loss's own rule):", ""]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for row in rows:
        values = [f"{row['metrics'][name]:.3f}" if name in row["metrics"] else "-" for name in metrics]
        against = "-" if row["difference"] is None else f"{gap(row['difference'])}, {p_text(row['difference']['p'])}"
        lines.append(_line([_escape(row["loss"]), row["rule"] + (" (own)" if row["own"] else ""), *values, against]))
    sentence = sentence_on_rules(comparison)
    return [*lines, *(["", sentence] if sentence else [])]


def _shown(comparison: dict[str, Any], limit: int) -> list[str]:
    """The selection metric, then the next headline metrics."""
    selection = comparison["selection_metric"]
    return [selection, *(m for m in comparison["headline"] if m != selection)][:limit]


def _gap(comparison: dict[str, Any], loss: str, metric: str) -> str:
    if loss == comparison["baseline"]:
        return "baseline"
    difference = comparison["losses"][loss]["difference"].get(metric)
    return (
        "-" if difference is None else gap(difference) if difference["low"] is not None else signed(difference["mean"])
    )


def _legend(comparison: dict[str, Any], *marks: str) -> str:
    confidence = f"{100 * comparison['inference']['confidence']:g} %"
    over = f"{comparison['unit']} and training" if training_is_in(comparison) else f"{comparison['unit']} alone"
    shown = [
        mark for mark in marks if not mark.startswith("!") or any(e["alarms"] for e in comparison["losses"].values())
    ]
    return f"{'; '.join(shown)}. [..]: {confidence} interval over {over}; {models_text(comparison)}."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
