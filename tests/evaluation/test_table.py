"""A comparison as tables for a terminal, a Markdown file and a spreadsheet, from the content of its files alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raregrade.evaluation.compare import compare_reports
from raregrade.evaluation.table import format_summary, format_table, loss_table, markdown_table, seed_table

Comparison = dict[str, Any]


@pytest.fixture
def comparison(tmp_path: Path, report, graded, compare_section) -> Comparison:
    """A better loss, cdw, and one whose name has characters of Markdown; two seeds each."""
    errors = {"ce": 60, "cdw": 20, "l_m|f*": 70}
    paths = [
        report(loss, seed, predictions=graded(wrong + seed, wrong + 2 * seed), folder=f"{i}/{seed}")
        for i, (loss, wrong) in enumerate(errors.items())
        for seed in (1, 2)
    ]
    return compare_reports(paths, compare_section(tuple(errors), (1, 2)), tmp_path / "out")


def test_a_narrow_terminal_gets_fewer_metrics_and_wrapped_sentences(comparison: Comparison) -> None:
    wide, narrow = format_table(comparison).splitlines(), format_table(comparison, 90).splitlines()
    assert narrow[0] == wide[0][: len(narrow[0])]
    assert len(narrow[0]) <= 90 < len(wide[0])
    assert all(len(line) <= 90 for line in format_summary(comparison, width=90).splitlines())
    assert format_summary(comparison, width=90).split()[-20:] == format_summary(comparison).split()[-20:]
    assert "vs ce, test" in format_table(comparison, 20), "what the choice rests on stays"


def test_the_terminal_table_is_aligned_and_marks_what_is_recommended(comparison: Comparison) -> None:
    lines = format_table(comparison).splitlines()
    assert lines[0].split()[:4] == ["loss", "val", "QWK", "(chose)"]
    column = lines[0].index("vs ce, test")
    assert lines[2][column:].startswith("baseline")
    assert (lines[3][column], lines[4][column]) == ("+", "-")
    marked = [line.split()[1] for line in lines[2:5] if line.startswith("*")]
    assert marked == [comparison["recommended"]["loss"]]
    assert all(line.isascii() and len(line) < 130 for line in lines)
    assert lines[-1].startswith("* recommended. [..]: 95 % interval over patients and training; mean of 2 seeds.")


def test_a_loss_with_an_alarm_is_marked_and_the_mark_explained(comparison: Comparison) -> None:
    alarm = {
        "kind": "never_predicted",
        "split": "test",
        "class_name": "severe",
        "text": "never predicts severe on test",
    }
    changed = copy.deepcopy(comparison)
    changed["losses"]["cdw"]["alarms"] = [alarm]
    lines = format_table(changed).splitlines()
    assert "!" in next(line for line in lines if " cdw " in line).split()[0]
    assert "! raises an alarm" in lines[-1]
    assert "!" not in format_table(comparison)
    assert loss_table(changed).set_index("loss").loc["cdw", "alarms"] == "never predicts severe on test"


def test_one_seed_is_said_to_leave_training_out_of_the_intervals(
    tmp_path: Path, report, graded, compare_section
) -> None:
    paths = [report("ce", predictions=graded(60, 60)), report("cdw", predictions=graded(20, 20))]
    last = format_table(compare_reports(paths, compare_section(), tmp_path / "out")).splitlines()[-1]
    assert last.endswith("95 % interval over patients alone; one seed.")


def test_the_summary_begins_with_the_data_and_ends_with_the_looks(comparison: Comparison) -> None:
    changed = {**comparison, "data_warnings": ["two patients share a picture"]}
    text = format_summary(changed, {"test_looks": 5, "minutes": None})
    assert text.startswith("warning: two patients share a picture\n\n")
    assert text.index(comparison["advice"]) < text.index("Power: ") < text.index("used by 5 comparisons")
    assert "comparisons, including" not in format_summary(comparison)


def test_names_stay_what_they_are_in_markdown(comparison: Comparison) -> None:
    text = markdown_table(comparison)
    assert r"| l\_m\|f\* |" in text
    assert "**cdw**" in text or comparison["recommended"]["loss"] != "cdw"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace(r"\|", "").count("|") for line in rows[:5]} == {len(comparison["headline"]) + 4}
    assert "| cdw | median |" in text
    assert "| cdw | argmax (own) |" in text


def test_the_spreadsheets_have_a_row_a_loss_and_a_row_a_model(comparison: Comparison) -> None:
    losses = loss_table(comparison).set_index("loss")
    assert losses["seeds"].to_dict() == {"ce": 2, "cdw": 2, "l_m|f*": 2}
    found = comparison["losses"]["cdw"]["difference"]["test_qwk"]
    assert losses.loc["cdw", "test_qwk_difference"] == found["mean"]
    assert losses.loc["cdw", "test_qwk_difference_p"] == found["p"]
    assert pd.isna(losses.loc["ce", "test_qwk_difference"])
    seeds = seed_table(comparison)
    assert seeds[["loss", "seed"]].to_numpy().tolist() == [
        [loss, seed] for loss in ("ce", "cdw", "l_m|f*") for seed in (1, 2)
    ]


def test_a_table_is_printed_without_loading_anything_heavy() -> None:
    code = (
        "import sys, raregrade.evaluation.table; "
        "print([m for m in ('pandas', 'scipy', 'torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
