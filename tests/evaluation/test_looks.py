"""Looks at a test split: what is one, and that each is counted once."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from raregrade.errors import DataError
from raregrade.evaluation.candidates import Candidate, read_candidates
from raregrade.evaluation.looks import Look, ledger_file, record
from raregrade.evaluation.predictions import Predictions
from raregrade.models.decisions import Decision

Candidates = dict[str, list[Candidate]]


@pytest.fixture
def candidates(report, compare_section) -> Candidates:
    paths = [report(loss, strength=g) for loss, g in (("ce", 1.0), ("cdw", 2.0))]
    return read_candidates(paths, compare_section().compare)[0]


def test_the_same_models_in_another_order_are_the_same_look(candidates: Candidates) -> None:
    turned = {loss: candidates[loss] for loss in reversed(candidates)}
    assert Look.of(turned) == Look.of(candidates)


def test_another_model_or_rule_is_another_look_at_the_same_split(
    candidates: Candidates, report, compare_section
) -> None:
    more, _ = read_candidates([report("ce", 2), report("cdw", 2)], compare_section(seeds=(2,)).compare)
    median = {loss: [replace(c, decision=Decision("median")) for c in group] for loss, group in candidates.items()}
    looks = [Look.of(found) for found in (candidates, {"ce": candidates["ce"]}, more, median)]
    assert len({look.identity for look in looks}) == 4
    assert {look.split for look in looks} == {"hash of the data"}


def test_what_models_say_of_validation_is_no_look_at_the_test_split(candidates: Candidates) -> None:
    (member,) = candidates["cdw"]
    frame = member.predictions.frame.copy()
    val = frame["split"] == "val"
    frame.loc[val, list(member.predictions.label_space.prob_columns)] = 0.25
    other = replace(member, predictions=Predictions(frame, member.predictions.label_space))
    assert Look.of({**candidates, "cdw": [other]}) == Look.of(candidates)


def test_a_test_split_without_a_dataset_is_named_by_its_rows(report, draw, ordinal, compare_section) -> None:
    section = compare_section(("a",), baseline="a").compare

    def split(data_seed: int, noise_seed: int) -> str:
        predictions = draw(ordinal, data_seed=data_seed, noise_seed=noise_seed)
        path = report("a", predictions=predictions, kind="external", dataset=None, folder=f"{data_seed}{noise_seed}")
        return Look.of(read_candidates([path], section)[0]).split

    assert split(0, 1) == split(0, 2)
    assert split(0, 1) != split(3, 1)
    assert split(0, 1).startswith("rows-")


def test_each_look_is_counted_once_and_each_split_by_itself(tmp_path: Path) -> None:
    ledger = tmp_path / "deep" / "looks.json"
    found = [record(Look(split, identity), ledger) for split, identity in ("xa", "xb", "xa", "yb", "xc")]
    assert found == [1, 2, 2, 1, 3]
    assert json.loads(ledger.read_text())["splits"] == {"x": ["a", "b", "c"], "y": ["b"]}


def test_looks_that_another_store_knows_are_added(tmp_path: Path) -> None:
    ledger = tmp_path / "looks.json"
    record(Look("x", "a"), ledger)
    assert record(Look("x", "b"), ledger, elsewhere={"a", "c", "d"}) == 4
    assert record(Look("x", "b"), ledger) == 4


def test_a_ledger_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"splits": 3}'):
        (tmp_path / "looks.json").write_text(content)
        with pytest.raises(DataError, match=r"looks\.json: is no ledger of looks .*restore it, or delete it"):
            record(Look("x", "a"), tmp_path / "looks.json")
        assert (tmp_path / "looks.json").read_text() == content


def test_the_ledger_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAREGRADE_TEST_LOOKS", raising=False)
    assert ledger_file() == Path(".raregrade/test-looks.json")
    monkeypatch.setenv("RAREGRADE_TEST_LOOKS", str(tmp_path / "team.json"))
    assert ledger_file() == tmp_path / "team.json"


def _record_ten(ledger: Path, number: int) -> None:
    for i in range(10):
        record(Look("x", f"{number}-{i}"), ledger)


@pytest.mark.slow
def test_looks_of_several_processes_at_once_are_all_counted(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_record_ten, args=(tmp_path / "looks.json", number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert record(Look("x", "last"), tmp_path / "looks.json") == 31
