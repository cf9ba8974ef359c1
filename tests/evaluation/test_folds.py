"""Cross-validation: reports of folds as candidates of one comparison, each model judged by its own metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.errors import DataError
from raregrade.evaluation.compare import compare_candidates
from raregrade.evaluation.folds import read_fold_candidates, spread
from raregrade.evaluation.paired import FoldedModels, models_of
from raregrade.evaluation.predictions import make_predictions, write_predictions
from raregrade.evaluation.report import Judged, judge, write_json
from raregrade.labels import LabelSpace

FOLDS, PER_FOLD, TEST = 3, 60, 60
ORDINAL = LabelSpace("ordinal", ("none", "mild", "severe"))
MANIFEST = pd.DataFrame(
    {
        "image_id": [f"i{n:03d}" for n in range(FOLDS * PER_FOLD + TEST)],
        "fold": np.concatenate([np.repeat(np.arange(FOLDS), PER_FOLD), np.full(TEST, -1)]),
    }
)


def fold_report(
    folder: Path,
    fold: int,
    *,
    loss: str = "ce",
    seed: int = 1,
    skill: float = 1.0,
    offset: float = 0.0,
    rows: np.ndarray | None = None,
) -> Path:
    """A report as ``evaluate`` writes it for the model of ``fold``; ``offset`` moves its logits for grade severe."""
    val = np.flatnonzero(MANIFEST["fold"] == fold) if rows is None else rows
    both = np.concatenate([val, np.flatnonzero(MANIFEST["fold"] == -1)])
    draw = np.random.default_rng([fold, seed, len(loss)])
    targets = both % 3
    logits = draw.normal(size=(len(both), 3)) + skill * np.eye(3)[targets] + offset * np.eye(3)[2]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = draw.permutation(len(both))
    predictions = make_predictions(
        ORDINAL,
        image_id=MANIFEST["image_id"].to_numpy()[both][order],
        group_id=[f"g{n // 2}" for n in both[order]],
        split=np.array(["val"] * len(val) + ["test"] * TEST)[order],
        targets=targets[order],
        probs=probs[order],
    )
    card = {"loss": {"name": loss, "kind": loss, "params": {"x": 1}}, "seed": seed}
    metrics, content = judge(predictions, Judged(loss, card | {"dataset": {"content_hash": "h", "source": "drawn"}}))
    out = folder / loss / str(seed) / str(fold)
    out.mkdir(parents=True)
    write_predictions(predictions, out / "predictions.parquet")
    write_json(out / "metrics.json", metrics)
    write_json(out / "report.json", content)
    return out


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of ce and of a better loss, two seeds and three folds each; models of different folds have other offsets."""
    folder = tmp_path_factory.mktemp("reports")
    return [
        fold_report(folder, fold, loss=loss, seed=seed, skill=skill, offset=2.0 * fold - 2.0)
        for loss, skill in (("ce", 1.0), ("better", 2.5))
        for seed in (2, 1)
        for fold in reversed(range(FOLDS))
    ]


Section = Callable[..., Any]


def metric(path: Path, name: str) -> float:
    return float(json.loads((path / "metrics.json").read_text())[name])


def values(reports: list[Path], loss: str, name: str) -> np.ndarray:
    """[folds, seeds] as the reports say."""
    return np.array(
        [
            [metric(next(p for p in reports if p.parts[-3:] == (loss, seed, str(fold))), name) for seed in ("1", "2")]
            for fold in range(FOLDS)
        ]
    )


def test_each_model_is_a_candidate_with_the_fold_that_it_did_not_train_on(
    reports: list[Path], compare_section: Section
) -> None:
    candidates, left_out = read_fold_candidates(
        reports, MANIFEST, compare_section(("ce", "better"), (1, 2), baseline="ce").compare
    )
    assert left_out == []
    assert [c.model for c in candidates["ce"]] == ["1/0", "1/1", "1/2", "2/0", "2/1", "2/2"]
    for candidate in candidates["better"]:
        assert candidate.path.parts[-2:] == (str(candidate.seed), str(candidate.fold))


def test_validation_is_the_mean_over_folds_of_what_each_model_reaches(
    reports: list[Path], compare_section: Section, tmp_path: Path
) -> None:
    """Pooled, the offsets between the models would halve what AUROC is above chance."""
    section = compare_section(("ce", "better"), (1, 2), baseline="ce", metric="auroc")
    candidates, left_out = read_fold_candidates(reports, MANIFEST, section.compare)
    result = compare_candidates(candidates, left_out, section, tmp_path / "out")
    found = result["losses"]["ce"]["metrics"]["val_auroc_severe"]
    own = values(reports, "ce", "val_auroc_severe")
    assert found["mean"] == pytest.approx(own.mean())
    assert found["per_seed"]["2/1"] == pytest.approx(own[1, 1])
    pooled = [candidates["ce"][i].predictions for i in range(FOLDS)]
    scores = np.concatenate([p.probs("val")[:, 2] for p in pooled])
    positive = np.concatenate([p.targets("val") == 2 for p in pooled])
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(positive, scores) < own[:, 0].mean() - 0.05


def test_a_difference_on_validation_is_tested_over_folds(reports: list[Path], compare_section: Section) -> None:
    """Nadeau and Bengio by hand: seeds averaged, variance (1/k + 1/(k - 1)) s², k - 1 degrees of freedom."""
    from scipy.stats import t as student

    section = compare_section(("ce", "better"), (1, 2), baseline="ce")
    candidates, _ = read_fold_candidates(reports, MANIFEST, section.compare)
    models = models_of(candidates, "val", ORDINAL, 0.95)
    assert isinstance(models, FoldedModels)
    found = models.difference("qwk", "better", "ce")
    gaps = (values(reports, "better", "val_qwk") - values(reports, "ce", "val_qwk")).mean(axis=1)
    error = np.sqrt((1 / FOLDS + 1 / (FOLDS - 1)) * gaps.var(ddof=1))
    assert found.mean == pytest.approx(gaps.mean())
    assert found.standard_error == pytest.approx(error)
    assert found.df == FOLDS - 1
    assert found.p == pytest.approx(2 * student.sf(abs(gaps.mean()) / error, FOLDS - 1))
    assert found.low is not None
    assert found.low == pytest.approx(gaps.mean() - student.ppf(0.975, FOLDS - 1) * error)
    own = models.estimate("qwk", "ce")
    by_fold = values(reports, "ce", "val_qwk").mean(axis=1)
    assert own.standard_error == pytest.approx(np.sqrt((1 / FOLDS + 1 / (FOLDS - 1)) * by_fold.var(ddof=1)))


def test_on_the_test_split_every_model_counts_by_itself(
    reports: list[Path], compare_section: Section, tmp_path: Path
) -> None:
    section = compare_section(("ce", "better"), (1, 2), baseline="ce")
    candidates, left_out = read_fold_candidates(reports, MANIFEST, section.compare)
    result = compare_candidates(candidates, left_out, section, tmp_path / "out")
    own = values(reports, "better", "test_qwk")
    found = result["losses"]["better"]["metrics"]["test_qwk"]
    assert found["mean"] == pytest.approx(own.mean())
    assert found["sd"] == pytest.approx(own.std(ddof=1))
    assert result["claim"]["verdict"] == "better"
    assert result["splits"]["val"]["images"] == FOLDS * PER_FOLD
    assert result["positives"]["val"] == {"none": 60, "mild": 60, "severe": 60}
    assert (result["folds"], result["losses"]["ce"]["seeds"]) == (FOLDS, [1, 2])
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "mean of 3 folds × 2 seeds" in page
    assert "Nadeau and Bengio" in page
    seeds = pd.read_csv(tmp_path / "out" / "per_seed.csv")
    assert len(seeds) == 2 * 2 * FOLDS
    row = seeds[(seeds["loss"] == "better") & (seeds["seed"] == 2) & (seeds["fold"] == 1)]
    assert row["test_qwk"].item() == pytest.approx(own[1, 1])


def test_one_seed_is_enough_for_a_claim_over_folds(
    reports: list[Path], compare_section: Section, tmp_path: Path
) -> None:
    section = compare_section(("ce", "better"), (1,), baseline="ce")
    candidates, left_out = read_fold_candidates(reports, MANIFEST, section.compare)
    result = compare_candidates(candidates, left_out, section, tmp_path / "out")
    assert result["claim"]["difference"]["p"] < 0.05
    assert {c.model for c in left_out} == {"2/0", "2/1", "2/2"}
    assert any("ce/2/0" in note for note in result["notes"])


def test_a_class_that_no_fold_model_predicts_raises_an_alarm(compare_section: Section, tmp_path: Path) -> None:
    paths = [
        fold_report(tmp_path, fold, loss=loss, skill=2.0, offset=-20.0 if loss == "blind" else 0.0)
        for loss in ("ce", "blind")
        for fold in range(FOLDS)
    ]
    section = compare_section(("ce", "blind"), (1,), baseline="ce")
    candidates, left_out = read_fold_candidates(paths, MANIFEST, section.compare)
    losses = compare_candidates(candidates, left_out, section, tmp_path / "out")["losses"]
    found = {(a["kind"], a["split"], a["class_name"]) for a in losses["blind"]["alarms"]}
    assert found >= {("never_predicted", "val", "severe"), ("never_predicted", "test", "severe")}
    assert losses["ce"]["alarms"] == []


def test_the_spread_is_over_the_metrics_of_the_folds(reports: list[Path], compare_section: Section) -> None:
    candidates, _ = read_fold_candidates(
        reports, MANIFEST, compare_section(("ce", "better"), (1, 2), baseline="ce").compare
    )
    found = spread(candidates["ce"][:FOLDS])
    for name in ("val_macro_f1", "val_auroc"):
        own = values(reports, "ce", name)[:, 0]
        assert found[name]["per_fold"] == pytest.approx({str(fold): own[fold] for fold in range(FOLDS)})
        assert found[name]["mean"] == pytest.approx(own.mean())
        assert found[name]["sd"] == pytest.approx(own.std(ddof=1))
    assert not any(name.startswith("test_") for name in found)


def test_losses_with_different_folds_are_not_compared(tmp_path: Path, compare_section: Section) -> None:
    paths = [fold_report(tmp_path, 0), fold_report(tmp_path, 1), fold_report(tmp_path, 0, loss="lmf")]
    with pytest.raises(DataError, match="lmf with seed 1 has reports of folds 0, others of 0, 1"):
        read_fold_candidates(paths, MANIFEST, compare_section(("ce", "lmf")).compare)


def test_a_fold_that_is_there_twice_is_refused(tmp_path: Path, compare_section: Section) -> None:
    one = fold_report(tmp_path, 0)
    with pytest.raises(DataError, match="are both loss ce with seed 1 on fold 0"):
        read_fold_candidates([one, one], MANIFEST, compare_section(("ce",)).compare)


@pytest.mark.parametrize("rows", [np.arange(5), np.arange(PER_FOLD - 3, PER_FOLD + 3)], ids=["part", "two"])
def test_a_report_on_part_of_a_fold_or_on_two_is_refused(
    tmp_path: Path, compare_section: Section, rows: np.ndarray
) -> None:
    with pytest.raises(DataError, match="its validation images are not one fold of the dataset"):
        read_fold_candidates([fold_report(tmp_path, 0, rows=rows)], MANIFEST, compare_section(("ce",)).compare)


def test_a_folder_without_a_report_is_refused(tmp_path: Path, compare_section: Section) -> None:
    with pytest.raises(DataError, match=r"report\.json: no such file"):
        read_fold_candidates([tmp_path], MANIFEST, compare_section(("ce",)).compare)
    with pytest.raises(DataError, match="no reports were given"):
        read_fold_candidates([], MANIFEST, compare_section(("ce",)).compare)
