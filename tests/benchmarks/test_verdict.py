"""The benchmark of the verdict draws and counts what it says, and notices a test that is too sure of itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.evaluation import mrmc
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.paired import PairedModels

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))  # behind the root, whose folder `pipelines` is meant

import verdict  # noqa: E402
import verdict_intervals  # noqa: E402
import verdict_recorded  # noqa: E402
from verdict_intervals import Sample, coverage, truth, usual_positives  # noqa: E402
from verdict_rates import Study, repeat, repeat_all  # noqa: E402
from verdict_worlds import (  # noqa: E402
    MULTILABEL,
    NOMINAL,
    ORDINAL,
    World,
    draw_models,
    draw_patients,
    draw_scales,
)

WORLDS = [ORDINAL, NOMINAL, MULTILABEL]


@pytest.mark.parametrize("world", WORLDS, ids=["ordinal", "nominal", "multilabel"])
def test_less_noise_is_a_better_model(world: World) -> None:
    rng = np.random.default_rng(0)
    patients = draw_patients(rng, world, 2000)
    images = np.bincount(patients.groups)
    assert (images.min(), images.max()) == (1, world.most_images)
    better, worse = draw_models(rng, world, patients, [0.7, 1.2])
    assert better.shape == (len(patients.targets), world.space.num_classes)
    values = [compute_metrics(patients.targets, probs, world.space) for probs in (better, worse)]
    assert values[0]["auroc"] > values[1]["auroc"] + 0.05
    if world is MULTILABEL:
        assert (patients.targets[:, 0] >= patients.targets[:, 1]).all()  # a nodule is an opacity
    else:
        assert better.sum(axis=1) == pytest.approx(1)


def test_models_of_one_loss_err_alike_and_those_of_two_less_so() -> None:
    rng = np.random.default_rng(1)
    patients = draw_patients(rng, ORDINAL, 4000)
    one = draw_models(rng, ORDINAL, patients, [1, 1]).argmax(axis=2) == patients.targets
    other = draw_models(rng, ORDINAL, patients, [1]).argmax(axis=2) == patients.targets
    assert np.corrcoef(one)[0, 1] > np.corrcoef(one[0], other[0])[0, 1] + 0.03


def test_scales_scatter_around_what_the_loss_gains() -> None:
    scales = draw_scales(np.random.default_rng(2), 4000, 0.1, gain=0.3)
    assert np.log(scales).mean() == pytest.approx(-0.3, abs=0.01)
    assert np.log(scales).std() == pytest.approx(0.1, abs=0.005)


def test_a_study_without_a_better_loss_has_no_difference_and_one_with_has() -> None:
    none = repeat(Study(ORDINAL, 30, (2, 2), (0.05, 0.05)), 40, seed=3)
    mean = np.array([f.differences["qwk"].mean for f in none])
    assert abs(mean.mean()) < 3 * mean.std() / np.sqrt(40)
    assert {f.detectable for f in none} == {None}
    better = repeat(Study(ORDINAL, 60, (3, 3), (0.05, 0.05), gain=0.5), 10, seed=3)
    assert {f.claimed for f in better} == {"better"}
    assert all(f.detectable is not None and f.detectable > 0 for f in better)


def test_numbers_do_not_depend_on_processes() -> None:
    studies = [Study(MULTILABEL, 20, (2, 3), (0.05, 0.05), losses=3), Study(NOMINAL, 20, (2, 2), (0.0, 0.0))]
    alone, together = list(repeat_all(studies, [3, 3], 1)), list(repeat_all(studies, [3, 3], 2))
    assert alone == together


def test_validation_chooses_and_test_claims_of_that_loss() -> None:
    """Where the last of four losses is far better it is chosen; with nothing to choose, any loss can be."""
    far = repeat(Study(ORDINAL, 60, (2, 2), (0.0, 0.0), losses=4, gain=1.0), 5, seed=4)
    assert {f.claimed for f in far} == {"better"}


def test_truth_of_shares_follows_from_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_intervals, "_POPULATION", 500)
    truth.cache_clear()
    values = truth(NOMINAL)
    truth.cache_clear()
    for name in NOMINAL.space.classes:
        recall, precision = values[f"recall_{name}"], values[f"precision_{name}"]
        assert values[f"f1_{name}"] == pytest.approx(2 * recall * precision / (recall + precision))
    patients = usual_positives(Sample(ORDINAL, 50))
    assert patients["none"] > patients["severe"] > 50 * ORDINAL.shares[-1]


def test_coverage_counts_shown_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_intervals, "_POPULATION", 20_000)
    truth.cache_clear()
    found = coverage(Sample(ORDINAL, 20), 40, seed=5)
    truth.cache_clear()
    assert found["qwk"].shown + found["qwk"].none == 40
    assert found["qwk"].covered >= 34
    assert found["auroc_severe"].none > 20  # of twenty patients, few have the worst grade


def too_sure(pair: PairedModels, name: str, loss: str, baseline: str) -> mrmc.Difference:
    """A test that takes a third of the standard error for the whole."""
    return mrmc.difference(
        (np.array(pair.values(name, loss)) - np.mean(pair.values(name, loss))) / 3 + np.mean(pair.values(name, loss)),
        (np.array(pair.values(name, baseline)) - np.mean(pair.values(name, baseline))) / 3
        + np.mean(pair.values(name, baseline)),
        pair.covariance(name, [loss, baseline]) / 9,
        case_df=pair.case_df(name, loss, baseline),
        confidence=0.95,
    )


def test_a_test_that_is_too_sure_of_itself_breaks_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdict, "NULL", [Study(ORDINAL, 20, (3, 3), (0.05, 0.05))])
    assert verdict.no_loss_is_better(quick=True, jobs=1)
    monkeypatch.setattr(PairedModels, "difference", too_sure)
    assert not verdict.no_loss_is_better(quick=True, jobs=1)
    assert "| ordinal | 20 | 3 | 0.05 | 2 |" in capsys.readouterr().out


def test_power_is_that_of_the_exact_test_and_a_blunt_test_breaks_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "BETTER", [Study(ORDINAL, 30, (3, 3), (0.05, 0.05), gain=0.5)])
    assert verdict.one_loss_is_better(quick=True, jobs=1)
    true = mrmc.difference

    def blunt(*arguments: Any, **settings: Any) -> mrmc.Difference:
        found = true(*arguments, **settings)
        return replace(found, p=None if found.p is None else min(1.0, 20 * found.p))

    monkeypatch.setattr("raregrade.evaluation.paired.difference", blunt)
    assert not verdict.one_loss_is_better(quick=True, jobs=1)


def test_an_interval_that_covers_too_rarely_breaks_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(covered: int) -> Callable[..., list[dict[str, Any]]]:
        return lambda *_: [{"qwk": SimpleNamespace(shown=1000, covered=covered)}]

    monkeypatch.setattr(verdict_intervals, "_POPULATION", 2000)
    monkeypatch.setattr(verdict, "SAMPLES", [Sample(ORDINAL, 20)])
    monkeypatch.setattr(verdict, "coverage_all", counts(940))
    assert verdict.intervals(quick=True, jobs=1)
    monkeypatch.setattr(verdict, "coverage_all", counts(900))
    assert not verdict.intervals(quick=True, jobs=1)


def test_recorded_trainings_are_told_apart_by_patients_alone_only() -> None:
    data = verdict_recorded.read_table(verdict.TABLE)
    assert data.probs.shape == (24, 308, 4)
    claims = {(c.metric, c.seeds): c for c in verdict_recorded.claims_of(data, (1, 3), 150)}
    for (metric, seeds), found in claims.items():
        assert found.raregrade <= (0 if seeds == 1 else 0.09), metric
        assert found.patients_alone > 0.1, metric


def test_the_recorded_table_keeps_what_models_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_recorded, "SEEDS", (1, 2))
    rng = np.random.default_rng(6)
    base = {
        "image_id": ["a", "b", "c"],
        "group_id": ["p", "p", "q"],
        "split": ["test", "test", "val"],
        "target": [0, 3, 1],
    }
    probs = rng.dirichlet(np.ones(4), (2, 3))
    columns = verdict_recorded.SPACE.prob_columns
    reports: list[Any] = [
        SimpleNamespace(frame=pd.DataFrame(base | {c: p[:, i] for i, c in enumerate(columns)})) for p in probs
    ]
    verdict_recorded.write_table(reports, tmp_path / "t.parquet")
    found = verdict_recorded.read_table(tmp_path / "t.parquet")
    assert found.targets.tolist() == [0, 3]
    assert found.groups.tolist() == ["p", "p"]
    np.testing.assert_allclose(found.probs, probs[:, :2], atol=1e-3)
    reports[1].frame["target"] = [0, 2, 1]
    with pytest.raises(SystemExit, match="seed 2 predicted other images than seed 1"):
        verdict_recorded.write_table(reports, tmp_path / "t.parquet")


def test_record_needs_a_folder_to_work_in(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        verdict.main(["record"])
    assert "record needs --work FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_the_quick_check_holds() -> None:
    assert verdict.main(["--quick", "--check", "--jobs", "1"]) == 0
