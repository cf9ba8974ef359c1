"""The bootstrap over groups against a loop that resamples images and calls scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from raregrade.evaluation import statistics
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.statistics import bootstrap_metrics, holm, interval, p_value
from raregrade.labels import LabelSpace


def resampled_images(groups: np.ndarray, resamples: int) -> list[np.ndarray]:
    """Image indices of each resample, by the draws that ``bootstrap_metrics`` makes with its default seed."""
    names = sorted(set(groups))
    drawn = np.random.default_rng(statistics.SEED).integers(0, len(names), size=(resamples, len(names)))
    return [np.concatenate([np.flatnonzero(groups == names[g]) for g in row]) for row in drawn]


def test_every_metric_equals_a_loop_over_resamples_with_scikit_learn(draw, ordinal: LabelSpace) -> None:
    predictions = draw(ordinal, images=150)
    targets, probs, groups = (getattr(predictions, n)("test") for n in ("targets", "probs", "groups"))
    computed = bootstrap_metrics(targets, [probs], groups, ordinal, resamples=30)
    for r, rows in enumerate(resampled_images(groups, 30)):
        t, p = targets[rows], probs[rows]
        guess = p.argmax(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {
                "qwk": reference.cohen_kappa_score(t, guess, weights="quadratic"),
                "mae": reference.mean_absolute_error(t, guess),
                "accuracy": reference.accuracy_score(t, guess),
                "balanced_accuracy": reference.balanced_accuracy_score(t, guess),
                "macro_f1": reference.f1_score(t, guess, average="macro"),
                "auroc": np.mean([reference.roc_auc_score(t == i, p[:, i]) for i in range(4) if (t == i).any()]),
            }
        for name, value in expected.items():
            assert computed[name][0, r] == pytest.approx(value, abs=1e-12), (name, r)


def test_multilabel_resamples_equal_metrics_of_the_drawn_images(draw, multilabel: LabelSpace) -> None:
    predictions = draw(multilabel, images=150)
    targets, probs, groups = (getattr(predictions, n)("val") for n in ("targets", "probs", "groups"))
    computed = bootstrap_metrics(targets, [probs], groups, multilabel, resamples=30)
    for r, rows in enumerate(resampled_images(groups, 30)):
        expected = compute_metrics(targets[rows], probs[rows], multilabel)
        defined = {name: values[0, r] for name, values in computed.items() if not np.isnan(values[0, r])}
        assert defined == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}


def test_all_models_see_the_same_draws(draw, ordinal: LabelSpace) -> None:
    a, b = draw(ordinal), draw(ordinal, noise_seed=1)
    targets, groups = a.targets("val"), a.groups("val")
    together = bootstrap_metrics(targets, [a.probs("val"), b.probs("val")], groups, ordinal, resamples=50)
    alone = bootstrap_metrics(targets, [b.probs("val")], groups, ordinal, resamples=50)
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name][1], values[0])


def test_draws_depend_on_neither_the_order_of_images_nor_the_chunk(
    draw, ordinal: LabelSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = draw(ordinal)
    targets, probs, groups = (getattr(predictions, n)("val") for n in ("targets", "probs", "groups"))
    expected = bootstrap_metrics(targets, [probs], groups, ordinal, resamples=40)
    order = np.random.default_rng(0).permutation(len(targets))
    monkeypatch.setattr(statistics, "CHUNK", 7)
    computed = bootstrap_metrics(targets[order], [probs[order]], groups[order], ordinal, resamples=40)
    for name, values in expected.items():
        np.testing.assert_allclose(computed[name], values, atol=1e-12)


def test_images_of_one_patient_widen_the_interval(ordinal: LabelSpace) -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    targets = rng.integers(0, 4, 400)
    right = rng.random(40)[patients] < 0.5
    probs = np.eye(4)[np.where(right, targets, (targets + 1) % 4)]
    by_patient = bootstrap_metrics(targets, [probs], patients, ordinal, resamples=500)["accuracy"]
    by_image = bootstrap_metrics(targets, [probs], np.arange(400), ordinal, resamples=500)["accuracy"]
    assert by_patient.std() > 2.5 * by_image.std()


def test_the_interval_leaves_out_undefined_resamples() -> None:
    samples = np.concatenate([np.linspace(0, 1, 101), [np.nan] * 9])
    found = interval(samples, 0.9)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.05, 0.95))
    assert interval(np.array([1.0, np.nan, np.nan]), 0.9) is None


def test_the_p_value_is_twice_the_smaller_tail_and_never_zero() -> None:
    assert p_value(np.arange(1, 100).astype(float)) == pytest.approx(2 / 100)
    assert p_value(np.array([-1.0] * 30 + [1.0] * 69)) == pytest.approx(2 * 31 / 100)
    assert p_value(np.zeros(99)) == 1


def test_holm_equals_a_worked_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= min(1, p * len(p_values)) + 1e-12
        assert all(adjusted[name] <= adjusted[other] for other, q in p_values.items() if p < q)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["qwk", "macro_f1", "auroc"])
def test_95_percent_intervals_cover_the_truth_about_as_often_as_they_say(metric: str) -> None:
    """Patients with a shared effect and 1 to 4 images; the truth is the metric of a very large sample."""
    space = LabelSpace("ordinal", ("a", "b", "c"))

    def sample(patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
        targets = rng.choice(3, patients, p=[0.5, 0.3, 0.2])[groups]
        effect = rng.normal(size=(patients, 3))[groups] * 0.7
        scores = 1.5 * np.eye(3)[targets] + effect + rng.normal(size=(len(groups), 3))
        return targets, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), groups

    truth = compute_metrics(*sample(100_000, np.random.default_rng(0))[:2], space)[metric]
    covered = 0
    for trial in range(400):
        targets, probs, groups = sample(120, np.random.default_rng(trial + 1))
        found = interval(bootstrap_metrics(targets, [probs], groups, space, resamples=300)[metric][0], 0.95)
        assert found is not None
        covered += found.low <= truth <= found.high
    # 400 trials: the standard error is 1.1 points; percentile intervals of 120 patients run slightly narrow.
    assert 0.90 <= covered / 400 <= 0.98
