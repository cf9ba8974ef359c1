"""What commands print on stdout: tables are drawn on a terminal, and plain aligned text in a pipe or a log."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

_GAP = "  "
_DRAWN_GAP = 3
# On a terminal a longer word is broken before a column is left out.
_MOST_OF_A_WORD = 24


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows`` under the names ``columns``; every row has one cell per column.

    In a pipe every cell is printed whole. On a terminal cells wrap, and where that is not enough the last columns are
    left out and named below the table; the first two are always there.
    """
    width = terminal_width()
    if width is None:
        widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    shown = _columns_that_fit([*zip(columns, *rows, strict=True)], width)
    _print_drawn(columns[:shown], [row[:shown] for row in rows], width)
    if shown < len(columns):
        print(f"Not shown, for want of width: {', '.join(columns[shown:])}. Widen the terminal, or pipe the output.")


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is; None where it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _columns_that_fit(columns: Sequence[Sequence[str]], width: int) -> int:
    """How many of ``columns``, from the first, have room for their words side by side; at least two."""
    needed = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    ends = list(accumulate(min(need, _MOST_OF_A_WORD) + _DRAWN_GAP for need in needed))
    return max(2, sum(end <= width for end in ends))


def _print_drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold cyan")
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        # Text, not str: class names and file names may hold square brackets, which are markup to rich.
        table.add_row(*(Text(cell) for cell in row))
    Console(width=width).print(table)


def print_registration(result: Mapping[str, Any]) -> None:
    """Print the content of registered.json: what was registered and what held, or why nothing was."""
    model = f"{result['loss']}, seed {result['seed']}"
    if result["registered"]:
        print(f"registered: {result['name']} version {result['version']} ({model})")
    else:
        print(f"not registered: {model}")
    for sentence in result["remarks"] if result["registered"] else result["reasons"]:
        print(f"  {sentence}")


def print_next_steps(result: Mapping[str, Any], raw_data: str) -> None:
    """Print three commands to go on with, after registered.json ``result``; ``raw_data`` holds an image to grade."""
    image = min(Path(raw_data).rglob("*.png"), default="IMAGE")
    model = f"models:/{result['name']}/{result['version']}"
    steps = {f"{_program()} ui": "the runs, in MLflow's UI"}
    if result["registered"]:
        steps[f"{_program()} promote {result['name']} {result['version']} --to champion"] = "put it to use"
        steps[f"{_program()} predict --model {model} {image}"] = "grade an image"
    else:
        steps["dvc metrics show"] = "the metric that chose, for each loss"
        steps[f"{_program()} models"] = "what is registered so far"
    print("\nNext, try:")
    for command, purpose in steps.items():
        print(f"  {command}  # {purpose}")


def _program() -> str:
    """How to call this program again: as it was called, or by its name where that finds it.

    A shell that finds a program by its name passes its absolute path on.
    """
    called = Path(sys.argv[0])
    by_name = called.is_absolute() and shutil.which("raregrade") == str(called)
    return "raregrade" if by_name else str(called)
