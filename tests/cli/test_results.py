"""What is printed at the end of ``raregrade pipeline run``, for each kind of result."""

import json

import pytest
import yaml

from raregrade.cli.results import print_results
from raregrade.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run's folder, with results as its tasks write them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path.parent


def comparison():
    value = {"mean": 0.5, "low": 0.4, "high": 0.6, "sd": None, "per_seed": {"1": 0.5}}
    entry = {
        "kind": "ce",
        "seeds": [1],
        "candidate": True,
        "decision": {"rule": "argmax"},
        "alarms": [],
        "metrics": {"val_qwk": value},
        "difference": {},
        "rules": {},
    }
    claim = {"metric": "test_qwk", "loss": "ce", "baseline": "ce", "tested": None, "verdict": "alone", "objection": ""}
    return {
        "selection_metric": "qwk",
        "winner": {"loss": "ce", "seed": 1},
        "recommended": {"loss": "ce", "seed": 1},
        "baseline": "ce",
        "claim": claim | {"difference": None, "power": None, "least": {}},
        "headline": ["qwk"],
        "inference": {"confidence": 0.95},
        "folds": None,
        "unit": "patients",
        "data_warnings": ["the same picture lies in train and test"],
        "losses": {"ce": entry},
    }


def test_a_comparison_and_a_registration(folder, capsys):
    write(folder / "compare" / "run.json", {"test_looks": 4, "minutes": None})
    outputs = {
        "comparison": write(folder / "compare" / "comparison.json", comparison()),
        "registration": write(
            folder / "register" / "registered.json",
            {
                "registered": True,
                "name": "grades",
                "version": "3",
                "reasons": [],
                "remarks": ["fine"],
                "loss": "ce",
                "seed": 1,
            },
        ),
    }
    print_results(outputs, folder)
    shown = capsys.readouterr().out
    assert shown.startswith("\nwarning: the same picture lies in train and test\n")
    assert "Only ce was compared: val QWK 0.500" in shown
    assert "used by 4 comparisons" in shown
    assert "registered: grades version 3 (ce, seed 1)\n  fine\n" in shown
    assert shown.endswith("report: run/compare/comparison.html\noutputs and logs of all tasks: run\n")


def test_a_comparison_over_folds_says_how_much_they_vary(folder, capsys):
    write(folder / "cv" / "comparison" / "comparison.json", comparison())
    folds = {"ce": {"1": {"val_qwk": {"mean": 0.45, "sd": 0.0707, "per_fold": {"0": 0.4, "1": 0.5}}}}}
    print_results({"comparison": write(folder / "cv" / "folds.json", folds)}, folder)
    shown = capsys.readouterr().out
    assert (
        "val_qwk of each fold:\nloss  seed  mean   sd     fold 0  fold 1\nce    1     0.450  0.071  0.400   0.500\n"
        in shown
    )
    assert "report: run/cv/comparison/comparison.html" in shown


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"moved": True, "promoted": True, "previous": "2"},
            "promoted: grades champion is now version 3 (was version 2)",
        ),
        ({"moved": True, "promoted": True}, "promoted: grades champion is now version 3 (was not set)"),
        ({"promoted": True}, "grades: champion is version 3 already"),
        ({}, "not promoted: the champion of grades stays what it was\n  too low"),
    ],
)
def test_a_promotion_or_its_refusal(folder, capsys, change, expected):
    result = {"name": "grades", "version": "3", "previous": None, "moved": False, "promoted": False}
    result |= {"reasons": ["too low"]} | change
    print_results({"promotion": write(folder / "promote" / "promoted.json", result)}, folder)
    assert expected in capsys.readouterr().out


def test_a_study_says_what_to_train_with(folder, capsys):
    best = {
        "schema": 2,
        "loss": "cdw_ce",
        "kind": "cdw_ce",
        "chosen": "tuned",
        "better": True,
        "study": {"name": "cdw_ce-1", "trials": 4},
        "params": {"power": 3.5},
        "train": {"lr": 0.01},
        "verdict": "cdw_ce tuned is better.",
    }
    print_results({"study": write(folder / "collect" / "best.yaml", yaml.safe_dump(best))}, folder)
    assert "cdw_ce tuned is better.\ncdw_ce is trained with power 3.5, lr 0.01\n" in capsys.readouterr().out


def test_a_result_that_is_missing_is_an_error(folder):
    folder.mkdir()
    with pytest.raises(UserError, match=r"registered\.json: no such file\. The run is incomplete\."):
        print_results({"registration": folder}, folder)
