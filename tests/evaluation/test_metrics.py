"""Metrics against scikit-learn, and where they are undefined."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import DataError
from raregrade.evaluation.metrics import compute_metrics, confusion_matrix, headline_metrics, label_outcomes
from raregrade.labels import LabelSpace


def space_of(task: str, k: int) -> LabelSpace:
    return LabelSpace(task, tuple(f"c{i}" for i in range(k)))  # type: ignore[arg-type]


@st.composite
def single_label(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Targets that may lack classes, and probabilities with ties."""
    k, n, seed = draw(st.integers(2, 6)), draw(st.integers(2, 40)), draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    present = rng.choice(k, size=rng.integers(1, k + 1), replace=False)
    steps = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), size=(n, k)) + 1e-6
    return rng.choice(present, n), steps / steps.sum(axis=1, keepdims=True)


@given(single_label())
def test_single_label_metrics_equal_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    targets, probs = data
    k, predicted = probs.shape[1], probs.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": reference.accuracy_score(targets, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(targets, predicted),
            # Over the classes that the split has: a false alarm for another is no class of its own.
            "macro_f1": reference.f1_score(targets, predicted, average="macro", labels=sorted(set(targets))),
            "mae": reference.mean_absolute_error(targets, predicted),
            "qwk": reference.cohen_kappa_score(targets, predicted, weights="quadratic", labels=list(range(k))),
        }
        scores = reference.f1_score(targets, predicted, average=None, labels=list(range(k)))
    occurring = set(targets) | set(predicted)
    expected |= {f"f1_c{i}": scores[i] for i in range(k) if i in occurring}
    areas = {
        f"auroc_c{i}": reference.roc_auc_score(targets == i, probs[:, i])
        for i in range(k)
        if len({*(targets == i)}) == 2
    }
    expected |= areas
    if areas:
        expected["auroc"] = np.mean(list(areas.values()))
    expected = {name: value for name, value in expected.items() if not np.isnan(value)}
    computed = compute_metrics(targets, probs, space_of("ordinal", k))
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        assert computed[name] == pytest.approx(value, abs=1e-12), name
    without_order = compute_metrics(targets, probs, space_of("multiclass", k))
    assert without_order == {n: v for n, v in computed.items() if n not in ("qwk", "mae")}


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([0.0, 0.3]))
def test_multilabel_metrics_equal_scikit_learn(k: int, n: int, seed: int, unknown: float) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, k)) < rng.random(k)).astype(float)
    targets[rng.random((n, k)) < unknown] = np.nan
    probs = np.round(rng.random((n, k)), 1)
    expected: dict[str, float] = {}
    positives = []
    for i in range(k):
        known = ~np.isnan(targets[:, i])
        truth, scores = targets[known, i].astype(int), probs[known, i]
        if truth.any() or (scores > 0.5).any():
            expected[f"f1_c{i}"] = reference.f1_score(truth, scores > 0.5)
        if 0 < truth.sum() < len(truth):
            expected[f"auroc_c{i}"] = reference.roc_auc_score(truth, scores)
            positives.append(truth.sum())
    f1 = [expected[f"f1_c{i}"] for i in range(k) if np.nansum(targets[:, i]) > 0]
    areas = [v for name, v in expected.items() if name.startswith("auroc")]
    if f1:
        expected["macro_f1"] = np.mean(f1)
    if areas:
        expected["auroc"] = np.mean(areas)
        expected["auroc_weighted"] = np.average(areas, weights=positives)
    computed = compute_metrics(targets, probs, space_of("multilabel", k))
    assert computed == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}


def test_averaged_auroc_equals_scikit_learn_where_every_class_occurs() -> None:
    rng = np.random.default_rng(3)
    targets, probs = rng.integers(0, 5, 300), rng.dirichlet(np.ones(5), 300)
    value = compute_metrics(targets, probs, space_of("multiclass", 5))["auroc"]
    assert value == pytest.approx(reference.roc_auc_score(targets, probs, multi_class="ovr"), abs=1e-12)
    labels = (rng.random((300, 4)) < 0.3).astype(float)
    scores = rng.random((300, 4))
    weighted = compute_metrics(labels, scores, space_of("multilabel", 4))["auroc_weighted"]
    assert weighted == pytest.approx(reference.roc_auc_score(labels, scores, average="weighted"), abs=1e-12)


def test_what_is_undefined_is_absent() -> None:
    only_one_class = compute_metrics(np.zeros(3, int), np.tile([0.8, 0.1, 0.1], (3, 1)), space_of("ordinal", 3))
    assert only_one_class == {"mae": 0, "macro_f1": 1, "balanced_accuracy": 1, "accuracy": 1, "f1_c0": 1}
    unknown = compute_metrics(np.full((2, 2), np.nan), np.full((2, 2), 0.9), space_of("multilabel", 2))
    assert unknown == {}


def test_violations_are_pairs_with_the_child_predicted_and_the_parent_not() -> None:
    space = LabelSpace("multilabel", ("a", "b", "c"), (("a", "b"), ("b", "c")))
    probs = np.array([[0.4, 0.6, 0.7], [0.9, 0.2, 0.8], [0.5, 0.9, 0.5], [0.1, 0.1, 0.1]])
    # b without a in the first and third image, c without b in the second; a label is predicted above 0.5, not at it.
    assert compute_metrics(np.zeros((4, 3)), probs, space)["violation_rate"] == 3 / 8


def test_confusion_counts_images_and_a_tie_takes_the_lower_class() -> None:
    probs = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
    matrix = confusion_matrix(np.array([1, 1, 0]), probs, space_of("ordinal", 2))
    assert matrix.tolist() == [[1, 0], [1, 1]]
    assert matrix.dtype == np.int64


def test_label_outcomes_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets, probs = (rng.random((50, 3)) < 0.4).astype(float), rng.random((50, 3))
    expected = reference.multilabel_confusion_matrix(targets, probs > 0.5)
    np.testing.assert_array_equal(label_outcomes(targets, probs, space_of("multilabel", 3)), expected)


def test_headline_metrics_come_first_in_their_order(ordinal: LabelSpace) -> None:
    rng = np.random.default_rng(0)
    computed = list(compute_metrics(rng.integers(0, 4, 100), rng.dirichlet(np.ones(4), 100), ordinal))
    assert tuple(computed[:6]) == headline_metrics(ordinal)
    assert computed[6:] == [f"{kind}_{c}" for kind in ("f1", "auroc") for c in ordinal.classes]


@pytest.mark.parametrize(
    ("targets", "probs", "says"),
    [
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "image 1 .* diverged"),
        (np.array([0, 2]), np.eye(2), "target 2 is not allowed; .* 0 to 1"),
        (np.array([0, 1]), np.eye(3)[:2], "expected"),
        (np.array([], int), np.empty((0, 2)), "no images"),
    ],
)
def test_arrays_that_are_no_predictions_are_refused(targets: np.ndarray, probs: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        compute_metrics(targets, probs, space_of("multiclass", 2))


def test_metrics_and_statistics_need_numpy_alone() -> None:
    code = (
        "import sys, raregrade.evaluation.metrics, raregrade.evaluation.intervals, raregrade.evaluation.mrmc\n"
        "loaded = {'pandas', 'sklearn', 'scipy', 'matplotlib', 'jinja2', 'torch', 'pydantic'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
