"""Which metric gets which interval, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from raregrade.evaluation.intervals import (
    FEWEST_POSITIVES,
    TOO_FEW,
    class_of_metric,
    enough_patients,
    model_intervals,
    positive_groups,
)
from raregrade.evaluation.limits import f1_limits, wilson
from raregrade.evaluation.metrics import compute_metrics
from raregrade.labels import LabelSpace

ORDINAL = LabelSpace("ordinal", ("none", "mild", "severe"))
MULTILABEL = LabelSpace("multilabel", ("opacity", "nodule"), (("opacity", "nodule"),))


def graded(patients: tuple[int, int, int], seed: int = 0, images: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities that are often right, and groups; so many patients of each class, all images alike."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.repeat([0, 1, 2], patients), images)
    groups = np.repeat([f"p{i}" for i in range(sum(patients))], images)
    logits = rng.normal(0, 1, (len(targets), 3)) + 1.5 * np.eye(3)[targets]
    probs = np.exp(logits)
    return targets, probs / probs.sum(axis=1, keepdims=True), groups


def test_every_metric_has_an_interval_that_encloses_its_value() -> None:
    targets, probs, groups = graded((30, 20, 12))
    found = model_intervals(targets, probs, groups, ORDINAL)
    values = compute_metrics(targets, probs, ORDINAL)
    assert found.keys() >= values.keys()
    for name, value in values.items():
        interval = found[name]
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < value < interval.high, name
    assert {found[name].method for name in ("accuracy", "f1_mild", "recall_severe")} == {"wilson"}
    assert found["auroc_mild"].method == "score"
    assert {found[name].method for name in ("qwk", "mae", "macro_f1", "auroc")} == {"jackknife"}


def test_recall_and_precision_are_shares_with_their_patients() -> None:
    targets, probs, groups = graded((30, 20, 12))
    predicted = probs.argmax(axis=1)
    names = np.unique(groups)
    hits = np.array([((predicted == 2) & (targets == 2) & (groups == n)).sum() for n in names])
    has = np.array([((targets == 2) & (groups == n)).sum() for n in names])
    says = np.array([((predicted == 2) & (groups == n)).sum() for n in names])
    found = model_intervals(targets, probs, groups, ORDINAL, confidence=0.9)
    assert (found["recall_severe"].low, found["recall_severe"].high) == pytest.approx(wilson(hits, has, 0.9))
    assert (found["precision_severe"].low, found["precision_severe"].high) == pytest.approx(wilson(hits, says, 0.9))
    assert found["recall_severe"].positives == found["precision_severe"].positives == 12


def test_a_class_with_few_patients_has_none_however_many_images() -> None:
    few = FEWEST_POSITIVES - 1
    targets, probs, groups = graded((30, 20, few), images=4)
    found = model_intervals(targets, probs, groups, ORDINAL)
    for name in ("auroc_severe", "f1_severe", "macro_f1", "balanced_accuracy", "auroc"):
        assert (found[name].low, found[name].high, found[name].method) == (None, None, TOO_FEW), name
    assert found["auroc_severe"].positives == few
    for name in ("qwk", "mae", "accuracy", "recall_severe", "auroc_mild"):
        assert found[name].low is not None, name
    targets, probs, groups = graded((30, 20, FEWEST_POSITIVES), images=1)
    assert model_intervals(targets, probs, groups, ORDINAL)["auroc_severe"].low is not None


@pytest.mark.parametrize(("patients", "enough"), [(7, False), (8, True)])
def test_eight_patients_of_the_rarest_class_are_the_fewest_for_an_interval(patients: int, enough: bool) -> None:
    positives = {"none": 100, "mild": 40, "severe": patients}
    assert enough_patients("auroc_severe", positives, ORDINAL) is enough
    assert enough_patients("macro_f1", positives, ORDINAL) is enough
    assert enough_patients("auroc_mild", positives, ORDINAL)


def test_a_class_that_is_never_predicted_has_an_interval_from_zero() -> None:
    targets, probs, groups = graded((30, 20, 12))
    probs = probs * [1, 1, 1e-9]
    found = model_intervals(targets, probs, groups, ORDINAL)
    for name in ("recall_severe", "f1_severe"):
        low, high = found[name].low, found[name].high
        assert low == pytest.approx(0, abs=1e-12), name
        assert high is not None
        assert 0.1 < high < 0.4, name
    assert "precision_severe" not in found


def test_a_model_without_errors_has_shares_that_end_at_one() -> None:
    targets, _, groups = graded((30, 20, 12))
    found = model_intervals(targets, np.eye(3)[targets], groups, ORDINAL)
    for name in ("accuracy", "recall_severe", "f1_severe", "auroc_severe"):
        assert found[name].high == pytest.approx(1), name
        assert 0.6 < (found[name].low or 0) < 1, name
    assert (found["qwk"].low, found["qwk"].method) == (None, "no spread")


def test_unknown_labels_belong_to_no_patient() -> None:
    targets = np.array([[1.0, np.nan], [1.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])
    assert positive_groups(targets, np.array(["a", "a", "b", "b"]), MULTILABEL) == {"opacity": 1, "nodule": 1}
    rng = np.random.default_rng(1)
    targets = (rng.random((120, 2)) < 0.4).astype(float)
    probs, groups = rng.random((120, 2)), np.repeat(np.arange(60), 2).astype(str)
    known = targets.copy()
    known[::3, 1] = np.nan
    found = model_intervals(known, probs, groups, MULTILABEL)
    kept = ~np.isnan(known[:, 1])
    alone = model_intervals(known[kept], probs[kept], groups[kept], MULTILABEL)
    for name in ("recall_nodule", "specificity_nodule", "f1_nodule", "auroc_nodule"):
        assert (found[name].low, found[name].high) == pytest.approx((alone[name].low, alone[name].high)), name
    assert found["auroc_opacity"] != alone["auroc_opacity"]
    assert found["violation_rate"].method == "wilson"


def test_f1_counts_hits_among_images_with_or_said_to_have_the_label() -> None:
    rng = np.random.default_rng(4)
    targets, probs = (rng.random((80, 2)) < 0.4).astype(float), rng.random((80, 2))
    has, says = targets[:, 1] == 1, probs[:, 1] > 0.5
    found = model_intervals(targets, probs, np.arange(80).astype(str), MULTILABEL)["f1_nodule"]
    assert (found.low, found.high) == pytest.approx(f1_limits(has & says, has | says, 0.95))


def test_a_class_called_weighted_is_not_taken_for_the_average() -> None:
    space = LabelSpace("multilabel", ("weighted", "other"))
    assert class_of_metric("auroc_weighted", space) is None
    assert class_of_metric("f1_weighted", space) == "weighted"
    assert class_of_metric("macro_f1", space) is None


def test_a_class_without_patients_leaves_averages_over_the_others() -> None:
    assert enough_patients("macro_f1", {"none": 40, "mild": 20, "severe": 0}, ORDINAL)
    assert not enough_patients("macro_f1", {"none": 40, "mild": 20, "severe": 3}, ORDINAL)
    assert not enough_patients("f1_severe", {"none": 40, "mild": 20, "severe": 0}, ORDINAL)


def test_names_of_patients_and_order_of_images_do_not_matter() -> None:
    targets, probs, groups = graded((30, 20, 12))
    order = np.random.default_rng(2).permutation(len(targets))
    renamed = np.array([f"x{g}" for g in groups])
    found = model_intervals(targets[order], probs[order], renamed[order], ORDINAL)
    for name, interval in model_intervals(targets, probs, groups, ORDINAL).items():
        assert (found[name].low, found[name].high) == pytest.approx((interval.low, interval.high), rel=1e-9), name
