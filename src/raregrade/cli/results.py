"""What ``raregrade pipeline run`` prints when a run has ended: whatever results its tasks have left, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raregrade.cli.options import read_json
from raregrade.cli.printing import print_registration, print_table, terminal_width

_INCOMPLETE = "The run is incomplete."


def print_results(outputs: Mapping[str, Path], folder: Path) -> None:
    """Print the results among ``outputs``: study, comparison, registration, promotion; then where all outputs lie.

    Args:
        outputs: artifacts by name, as ``raregrade.kubeflow.local_run`` collects them.
        folder: of the run.
    """
    print()
    page = None
    if "study" in outputs:
        _print_study(outputs["study"])
    if "comparison" in outputs:
        page = print_comparison(outputs["comparison"])
    if "registration" in outputs:
        print_registration(read_json(outputs["registration"] / "registered.json", _INCOMPLETE))
    if "promotion" in outputs:
        _print_promotion(read_json(outputs["promotion"] / "promoted.json", _INCOMPLETE))
    if page is not None:
        print(f"report: {_shown(page)}")
    print(f"outputs and logs of all tasks: {_shown(folder)}")


def _print_study(folder: Path) -> None:
    from raregrade.config.tuned import BEST_FILE, read_best

    best = read_best(folder / BEST_FILE)
    values = ", ".join(f"{name} {value}" for name, value in {**best["params"], **best["train"]}.items())
    print(f"{best['verdict']}\n{best['loss']} is trained with {values or 'its defaults'}\n")


def print_comparison(folder: Path) -> Path:
    """Print the table, and for a comparison over folds the spread; the comparison's page."""
    from raregrade.evaluation.table import RUN_FILE, format_summary

    over_folds = folder / "folds.json"
    home = folder / "comparison" if over_folds.is_file() else folder
    comparison = read_json(home / "comparison.json", _INCOMPLETE)
    facts = home / RUN_FILE
    print(format_summary(comparison, read_json(facts, _INCOMPLETE) if facts.is_file() else None, terminal_width()))
    if over_folds.is_file():
        _print_folds(read_json(over_folds, _INCOMPLETE), f"val_{comparison['selection_metric']}")
    return home / "comparison.html"


def _print_folds(folds: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    found = [
        (loss, seed, entry[metric]) for loss, seeds in folds.items() for seed, entry in seeds.items() if metric in entry
    ]
    if not found:
        return
    numbers = list(found[0][2]["per_fold"])
    print(f"\n{metric} of each fold:")
    rows = [
        [loss, seed, f"{entry['mean']:.3f}", "" if entry["sd"] is None else f"{entry['sd']:.3f}"]
        + [f"{entry['per_fold'][number]:.3f}" for number in numbers]
        for loss, seed, entry in found
    ]
    print_table(["loss", "seed", "mean", "sd", *(f"fold {number}" for number in numbers)], rows)


def _print_promotion(result: Mapping[str, Any]) -> None:
    if result["moved"]:
        before = f"was version {result['previous']}" if result["previous"] else "was not set"
        print(f"promoted: {result['name']} champion is now version {result['version']} ({before})")
    elif result["promoted"]:
        print(f"{result['name']}: champion is version {result['version']} already")
    else:
        print(f"not promoted: the champion of {result['name']} stays what it was")
        for reason in result["reasons"]:
            print(f"  {reason}")


def _shown(path: Path) -> Path:
    """``path`` as a person would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
