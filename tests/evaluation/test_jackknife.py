"""Leaving out a group in closed form equals computing each metric again without its images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.evaluation.jackknife import jackknife_covariance, leave_one_out
from raregrade.evaluation.metrics import compute_metrics
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

ORDINAL = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
MULTILABEL = LabelSpace("multilabel", ("opacity", "nodule", "mass"), (("opacity", "nodule"),))


def drawn(space: LabelSpace, seed: int, images: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    k = space.num_classes
    groups = rng.integers(0, 20, images).astype(str)
    if space.task == "multilabel":
        targets = (rng.random((images, k)) < 0.3).astype(float)
        targets[rng.random((images, k)) < 0.1] = np.nan
        return targets, np.round(rng.random((images, k)), 1), groups
    probs = rng.integers(1, 5, (images, k)).astype(float)
    return rng.choice(k, images, p=[0.6, 0.2, 0.15, 0.05]), probs / probs.sum(axis=1, keepdims=True), groups


@pytest.mark.parametrize("space", [ORDINAL, MULTILABEL], ids=["ordinal", "multilabel"])
@given(seed=st.integers(0, 10_000))
def test_leaving_a_group_out_equals_computing_without_it(space: LabelSpace, seed: int) -> None:
    targets, probs, groups = drawn(space, seed)
    decision = Decision("median") if space is ORDINAL else None
    found = leave_one_out(targets, probs, groups, space, decision)
    of_split = compute_metrics(targets, probs, space, decision)
    for i, name in enumerate(np.unique(groups)):
        kept = groups != name
        expected = compute_metrics(targets[kept], probs[kept], space, decision)
        for metric in of_split:
            if metric in expected and not (metric == "macro_f1" and lost_a_class(targets, kept)):
                assert found[metric][i] == pytest.approx(expected[metric], abs=1e-12), metric


def lost_a_class(targets: np.ndarray, kept: np.ndarray) -> bool:
    if targets.ndim == 1:
        return bool(set(targets) != set(targets[kept]))
    return bool(((np.nansum(targets, axis=0) > 0) != (np.nansum(targets[kept], axis=0) > 0)).any())


def test_a_class_of_the_split_counts_without_its_only_patient() -> None:
    """Whether a model never predicts a class or has one false alarm for it must not change the set of classes."""
    targets, groups = np.array([0, 0, 0, 1]), np.array(["a", "b", "c", "d"])
    never = np.tile([0.9, 0.1], (4, 1))
    alarm = np.array([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    space = LabelSpace("multiclass", ("common", "rare"))
    # Without patient d the rare class has no image: its F1 is 0 for both.
    assert leave_one_out(targets, never, groups, space)["macro_f1"][3] == pytest.approx((1 + 0) / 2)
    assert leave_one_out(targets, alarm, groups, space)["macro_f1"][3] == pytest.approx((0.8 + 0) / 2)


def test_covariance_of_a_mean_is_the_textbook_one() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    left_out = np.stack([(v.sum() - v) / 49 for v in (x, y)])
    np.testing.assert_allclose(jackknife_covariance(left_out), np.cov(x, y) / 50, rtol=1e-10)


def test_variance_agrees_with_a_bootstrap_over_patients() -> None:
    targets, probs, groups = drawn(ORDINAL, 5, images=900)
    groups = np.random.default_rng(2).integers(0, 300, 900).astype(str)
    left_out = leave_one_out(targets, probs, groups, ORDINAL)
    rng, names = np.random.default_rng(3), np.unique(groups)
    rows = {name: np.flatnonzero(groups == name) for name in names}
    resampled = []
    for _ in range(400):
        chosen = np.concatenate([rows[name] for name in rng.choice(names, len(names))])
        resampled.append(compute_metrics(targets[chosen], probs[chosen], ORDINAL))
    for metric in ("accuracy", "qwk", "mae", "macro_f1", "auroc", "balanced_accuracy"):
        expected = np.std([r[metric] for r in resampled])
        error = jackknife_covariance(left_out[metric][None])[0, 0] ** 0.5
        assert error == pytest.approx(expected, rel=0.15), metric


def test_equal_models_have_one_variance_whatever_the_groups() -> None:
    targets, probs, groups = drawn(MULTILABEL, 8)
    left_out = leave_one_out(targets, probs, groups, MULTILABEL)["auroc"]
    covariance = jackknife_covariance(np.stack([left_out, left_out]))
    assert covariance[0, 0] == covariance[1, 1] == pytest.approx(covariance[0, 1])
    renamed = np.array([f"patient {g}" for g in groups])
    again = leave_one_out(targets, probs, renamed, MULTILABEL)["auroc"]
    assert jackknife_covariance(again[None])[0, 0] == pytest.approx(covariance[0, 0])
