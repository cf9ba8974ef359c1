"""Pooling the reports of cross-validation, on predictions made up for the purpose."""

import json

import numpy as np
import pandas as pd
import pytest

from raregrade.errors import DataError
from raregrade.evaluation.folds import pool, read_fold_reports, spread
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import make_predictions, read_predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.labels import LabelSpace

FOLDS, PER_FOLD, TEST = 3, 20, 24
ORDINAL = LabelSpace("ordinal", ("none", "mild", "severe"))
FINDINGS = LabelSpace("multilabel", ("opacity", "nodule"))


def manifest():
    images = FOLDS * PER_FOLD + TEST
    fold = np.concatenate([np.repeat(np.arange(FOLDS), PER_FOLD), np.full(TEST, -1)])
    return pd.DataFrame({"image_id": [f"i{n:03d}" for n in range(images)], "fold": fold})


def targets_of(space, rows):
    if space.task == "multilabel":
        return np.stack([(rows + k) % 2 for k in range(space.num_classes)], axis=1).astype(np.float64)
    return rows % space.num_classes


def report(folder, fold, space=ORDINAL, *, loss="ce", seed=1, rows=None):
    """A report as ``evaluate`` writes it for the model of ``fold``."""
    table = manifest()
    val = np.flatnonzero(table["fold"] == fold) if rows is None else rows
    test = np.flatnonzero(table["fold"] == -1)
    both = np.concatenate([val, test])
    draw = np.random.default_rng([fold, seed, len(loss)])
    probs = draw.random((len(both), space.num_classes))
    probs = probs if space.task == "multilabel" else probs / probs.sum(axis=1, keepdims=True)
    order = draw.permutation(len(both))
    predictions = make_predictions(
        space,
        image_id=table["image_id"].to_numpy()[both][order],
        group_id=[f"g{n // 2}" for n in both[order]],
        split=np.array(["val"] * len(val) + ["test"] * len(test))[order],
        targets=targets_of(space, both[order]),
        probs=probs[order],
    )
    card = {"loss": {"name": loss, "kind": loss, "params": {"x": 1}}, "seed": seed, "dataset": {"content_hash": "h"}}
    out = folder / loss / str(seed) / str(fold)
    write_report(predictions, out, Judged(loss, card))
    return out


@pytest.fixture(scope="module", params=[ORDINAL, FINDINGS], ids=lambda space: space.task)
def space(request):
    return request.param


@pytest.fixture(scope="module")
def reports(tmp_path_factory, space):
    folder = tmp_path_factory.mktemp("reports")
    return [report(folder, fold, space) for fold in reversed(range(FOLDS))]


@pytest.mark.slow
def test_every_image_is_pooled_once_with_the_prediction_of_the_model_that_did_not_train_on_it(reports, space, tmp_path):
    (members,) = read_fold_reports(reports, manifest()).values()
    assert [member.fold for member in members] == list(range(FOLDS))
    metrics = pool(members, tmp_path / "pooled")
    pooled = read_predictions(tmp_path / "pooled" / "predictions.parquet", space).frame.set_index("image_id")
    table = manifest()
    val = pooled[pooled["split"] == "val"]
    assert sorted(val.index) == sorted(table.loc[table["fold"] >= 0, "image_id"])
    for member in members:
        own = member.predictions.frame
        own = own[own["split"] == "val"].set_index("image_id")[space.prob_columns]
        pd.testing.assert_frame_equal(val.loc[own.index, space.prob_columns], own)
    merged = read_predictions(tmp_path / "pooled" / "predictions.parquet", space)
    expected = compute_metrics(merged.targets("val"), merged.probs("val"), space)
    assert {name: metrics[f"val_{name}"] for name in expected} == pytest.approx(expected)


@pytest.mark.slow
def test_the_test_split_has_the_mean_of_what_the_models_say(reports, space, tmp_path):
    (members,) = read_fold_reports(reports, manifest()).values()
    pool(members, tmp_path / "pooled")
    pooled = read_predictions(tmp_path / "pooled" / "predictions.parquet", space).frame.set_index("image_id")
    one = manifest()["image_id"].iloc[-1]
    said = [m.predictions.frame.set_index("image_id").loc[one, space.prob_columns] for m in members]
    mean = np.mean([row.to_numpy(dtype=float) for row in said], axis=0)
    assert pooled.loc[one, space.prob_columns].to_numpy(dtype=float) == pytest.approx(mean)
    assert (pooled["split"] == "test").sum() == TEST


@pytest.mark.slow
def test_the_spread_is_over_the_metrics_of_the_folds(reports):
    (members,) = read_fold_reports(reports, manifest()).values()
    found = spread(members)
    for name in ("val_macro_f1", "val_auroc"):
        own = [json.loads((m.path / "metrics.json").read_text())[name] for m in members]
        assert found[name]["per_fold"] == pytest.approx({str(m.fold): v for m, v in zip(members, own, strict=True)})
        assert found[name]["mean"] == pytest.approx(np.mean(own))
        assert found[name]["sd"] == pytest.approx(np.std(own, ddof=1))


@pytest.mark.slow
def test_losses_with_different_folds_are_not_compared(tmp_path):
    reports = [report(tmp_path, 0), report(tmp_path, 1), report(tmp_path, 0, loss="lmf")]
    with pytest.raises(DataError, match="lmf with seed 1 has reports of folds 0, others of 0, 1"):
        read_fold_reports(reports, manifest())


@pytest.mark.slow
def test_a_fold_that_is_there_twice_is_refused(tmp_path):
    one = report(tmp_path, 0)
    with pytest.raises(DataError, match="ce with seed 1 has reports of folds 0, 0"):
        read_fold_reports([one, one], manifest())


@pytest.mark.slow
@pytest.mark.parametrize("rows", [np.arange(5), np.arange(PER_FOLD - 3, PER_FOLD + 3)], ids=["part", "two"])
def test_a_report_on_part_of_a_fold_or_on_two_is_refused(tmp_path, rows):
    with pytest.raises(DataError, match="its validation images are not one fold of the dataset"):
        read_fold_reports([report(tmp_path, 0, rows=rows)], manifest())


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a report"):
        read_fold_reports([tmp_path], manifest())
    with pytest.raises(DataError, match="no reports were given"):
        read_fold_reports([], manifest())
