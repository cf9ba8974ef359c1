"""A comparison in words and tables: for the terminal, as CSV and Markdown, and the one sentence of advice.

Works on the content of comparison.json alone and imports nothing heavy, so that a command can print it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raregrade.evaluation.naming import bounds, lower_is_better, metric_name, signed

if TYPE_CHECKING:
    import pandas as pd


def format_summary(comparison: dict[str, Any]) -> str:
    """The table, then the advice."""
    return f"{format_table(comparison)}\n\n{advice(comparison)}"


def advice(comparison: dict[str, Any]) -> str:
    """Which loss to train with and how sure that is, in one or two sentences. Claims nothing the interval does not."""
    winner, baseline = comparison["winner"]["loss"], comparison["baseline"]
    selection = f"val_{comparison['selection_metric']}"
    entry = comparison["losses"][winner]
    value = entry["metrics"][selection]
    stands = f"{metric_name(selection)} {_cell(value)}"
    if lower_is_better(selection):
        stands += " (lower is better)"
    if len(_candidates(comparison)) == 1:
        return f"Only {winner} was compared: {stands}."
    if winner == baseline:
        return f"Train with {winner}, the baseline: {stands}; no other loss did better on validation."
    difference = entry["difference"].get(selection)
    if difference is None:
        return f"No loss is clearly better than {baseline}: {winner} leads with {stands}, by an unknown margin."
    gap = f"{signed(difference['mean'])} {bounds(difference['low'], difference['high'])} over {baseline}"
    if comparison["clearly_better"]:
        return (
            f"Train with {winner}: {stands}, {gap}: clearly better than the baseline (p = {_p(difference['p_holm'])})."
        )
    # The interval is of one comparison; the claim must stand for all of them.
    if difference["low"] > 0 or difference["high"] < 0:
        gap += f", but p = {_p(difference['p_holm'])} when all losses are counted"
    return (
        f"No loss is clearly better than {baseline}. {winner} leads on validation: {stands}, {gap}; "
        "more patients or seeds would tell."
    )


def heading(comparison: dict[str, Any]) -> str:
    """The advice in a few words."""
    winner, baseline = comparison["winner"]["loss"], comparison["baseline"]
    if len(_candidates(comparison)) == 1:
        return f"Only {winner} was compared"
    if winner == baseline:
        return f"Train with {winner}, the baseline"
    return (
        f"Train with {winner}"
        if comparison["clearly_better"]
        else f"{winner} leads, not clearly better than {baseline}"
    )


def sentence_on_test(comparison: dict[str, Any]) -> str:
    """How the winner does on the test split, which had no say in choosing it."""
    winner, baseline = comparison["winner"]["loss"], comparison["baseline"]
    name = f"test_{comparison['selection_metric']}"
    value = comparison["losses"][winner]["metrics"].get(name)
    if value is None:
        return f"{metric_name(name)} is not defined for {winner}."
    text = f"On the test split, which had no say: {metric_name(name)} {_cell(value)}"
    difference = comparison["losses"][winner]["difference"].get(name)
    if difference is not None:
        text += f", {signed(difference['mean'])} {bounds(difference['low'], difference['high'])} over {baseline}"
    return text.rstrip() + "."


def format_table(comparison: dict[str, Any]) -> str:
    """The comparison as an aligned table for a terminal: plain ASCII but for names, no trailing newline."""
    selection = comparison["selection_metric"]
    columns = [f"val_{selection}", *(f"test_{m}" for m in _shown(comparison, 3))]
    heads = ["", "loss", metric_name(columns[0]), f"vs {comparison['baseline']}", *map(metric_name, columns[1:])]
    rows = []
    for loss, entry in comparison["losses"].items():
        mark = "*" if loss == comparison["winner"]["loss"] else ""
        cells = [_cell(entry["metrics"].get(name), with_bounds=i < 2) for i, name in enumerate(columns)]
        rows.append([mark, loss, cells[0], _gap(comparison, loss), *cells[1:]])
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    confidence = f"{100 * comparison['bootstrap']['confidence']:g} %"
    lines += [
        "",
        f"* chosen on validation. [..]: {confidence} interval over patients (groups), {_seeds(comparison)}.",
    ]
    return "\n".join(lines)


def markdown_table(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown document: advice, table over losses, notes."""
    selection = comparison["selection_metric"]
    columns = [f"val_{selection}", *(f"test_{m}" for m in comparison["headline"])]
    heads = ["Loss", metric_name(columns[0]), f"difference to {comparison['baseline']}", *map(metric_name, columns[1:])]
    lines = [comparison["advice"], "", sentence_on_test(comparison), "", _line(heads), _line(["---"] * len(heads))]
    for loss, entry in comparison["losses"].items():
        name = _escape(loss)
        cells = [_cell(entry["metrics"].get(column)) for column in columns]
        bold = f"**{name}**" if loss == comparison["winner"]["loss"] else name
        lines.append(_line([bold, cells[0], _gap(comparison, loss), *cells[1:]]))
    confidence = f"{100 * comparison['bootstrap']['confidence']:g} %"
    lines += [
        "",
        f"Bold: chosen on validation. {_seeds(comparison).capitalize()} with {confidence} interval over groups.",
    ]
    lines += [f"\n{note}" for note in comparison["notes"]]
    return "\n".join(lines) + "\n"


def loss_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """One row a loss: mean, interval and spread of every headline metric, and the difference to the baseline."""
    import pandas as pd  # noqa: PLC0415

    rows = []
    for loss, entry in comparison["losses"].items():
        row: dict[str, Any] = {
            "loss": loss,
            "winner": loss == comparison["winner"]["loss"],
            "seeds": len(entry["seeds"]),
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
    """One row a loss and seed: every metric that is defined."""
    return [
        {"loss": loss, "seed": seed} | {name: value["per_seed"][str(seed)] for name, value in entry["metrics"].items()}
        for loss, entry in comparison["losses"].items()
        for seed in entry["seeds"]
    ]


def _candidates(comparison: dict[str, Any]) -> list[str]:
    return [loss for loss, entry in comparison["losses"].items() if entry["candidate"]]


def _shown(comparison: dict[str, Any], limit: int) -> list[str]:
    """The selection metric, then the next headline metrics."""
    selection = comparison["selection_metric"]
    return [selection, *(m for m in comparison["headline"] if m != selection)][:limit]


def _cell(value: dict[str, Any] | None, *, with_bounds: bool = True) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.3f} {bounds(value['low'], value['high']) if with_bounds else ''}".rstrip()


def _gap(comparison: dict[str, Any], loss: str) -> str:
    if loss == comparison["baseline"]:
        return "baseline"
    difference = comparison["losses"][loss]["difference"].get(f"val_{comparison['selection_metric']}")
    if difference is None:
        return "-"
    return f"{signed(difference['mean'])} {bounds(difference['low'], difference['high'])}"


def _seeds(comparison: dict[str, Any]) -> str:
    count = len(comparison["losses"][comparison["baseline"]]["seeds"])
    return "one seed" if count == 1 else f"mean of {count} seeds"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "under 0.001"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
