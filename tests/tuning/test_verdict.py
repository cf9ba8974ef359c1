"""Better is what luck alone passes one time in twenty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raregrade.tuning.verdict import Folds, compare, sentence


def values(*numbers: float | None) -> dict[int, float | None]:
    return dict(enumerate(numbers))


def test_a_clear_gain_on_every_seed_is_better() -> None:
    found = compare(values(0.6, 0.62, 0.64), values(0.5, 0.51, 0.55), lower_is_better=False)
    assert found.better
    assert found.mean == pytest.approx(0.1)
    # The standard error of 0.10, 0.11, 0.09 is 0.01 / sqrt(3); t of 2 degrees of freedom is 2.92.
    assert found.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert found.t == pytest.approx(2.919986, abs=1e-5)


def test_a_gain_within_the_noise_is_not() -> None:
    assert not compare(values(0.6, 0.5, 0.7), values(0.5, 0.6, 0.55), lower_is_better=False).better


def test_the_same_values_are_not_better() -> None:
    assert not compare(values(0.6, 0.5), values(0.6, 0.5), lower_is_better=False).better


def test_where_lower_is_better_less_is_more() -> None:
    low, high = values(0.2, 0.21, 0.22), values(0.4, 0.42, 0.41)
    assert compare(low, high, lower_is_better=True).better
    assert not compare(high, low, lower_is_better=True).better


def test_a_candidate_that_diverged_once_is_not_better_whatever_the_rest() -> None:
    assert not compare(values(0.9, 0.91, None), values(0.1, 0.1, 0.1), lower_is_better=False).better


def test_one_pair_says_nothing() -> None:
    found = compare(values(0.9, 0.9), values(0.1, None), lower_is_better=False)
    assert (found.better, found.reason, found.pairs) == (False, "too_few", 1)


def test_equal_differences_are_no_proof() -> None:
    found = compare(values(0.6, 0.7, 0.8), values(0.5, 0.6, 0.7), lower_is_better=False)
    assert (found.better, found.reason) == (False, "equal_differences")
    assert found.mean == pytest.approx(0.1)
    said = sentence("lmf", "ce", found, None, "qwk")
    assert said == (
        "Tuned lmf differs from its settings in params.yaml by qwk +0.1000 with each of the 3 fresh seeds: without any "
        "spread nothing is shown, and the settings are kept."
    )


@pytest.mark.parametrize("reference", [(None, None), (None, None, None, None, None), (0.5, None, None, None, 0.6)])
def test_settings_that_do_not_train_are_worse_than_some_that_do(reference: tuple[float | None, ...]) -> None:
    candidate = values(*[0.6 + 0.01 * i for i in range(len(reference))])
    found = compare(candidate, values(*reference), lower_is_better=False)
    assert (found.better, found.reason) == (True, "reference_failed")
    failed = sum(value is None for value in reference)
    expected = f"with which {failed} of the trainings with fresh seeds did not come to their end."
    assert sentence("lmf", None, found, None, "qwk").endswith(expected)


@pytest.mark.parametrize(
    "reference",
    [
        (None, 0.5),
        (None, None, 0.5),
        (None, None, 0.5, 0.6, 0.55),
        (None, None, None, 0.9, 0.9),
        (None, None, None, 0.51, 0.49, 0.52, 0.5, 0.5),
    ],
)
def test_some_failed_trainings_of_the_reference_alone_prove_nothing(reference: tuple[float | None, ...]) -> None:
    candidate = values(*[0.5 + 0.01 * (i % 2) for i in range(len(reference))])
    assert not compare(candidate, values(*reference), lower_is_better=False).better


def test_neither_of_two_that_fail_is_better() -> None:
    found = compare(values(None, None), values(None, None), lower_is_better=False)
    assert (found.better, found.reason) == (False, "candidate_failed")
    assert sentence("lmf", "ce", found, None, "qwk").startswith("The best trial of lmf did not train to its end")


def test_over_folds_each_fold_counts_once_and_the_variance_is_corrected() -> None:
    """Against the formula of Nadeau and Bengio, written out; seeds 0 and 3 are of the same fold."""
    folds = Folds(of_training=[0, 1, 2, 0], held_out=1 / 3)
    found = compare(values(0.60, 0.62, 0.64, 0.64), values(0.50, 0.51, 0.55, 0.52), lower_is_better=False, folds=folds)
    differences = [(0.10 + 0.12) / 2, 0.11, 0.09]
    mean = sum(differences) / 3
    variance = sum((d - mean) ** 2 for d in differences) / 2
    assert (found.pairs, found.mean) == (3, pytest.approx(mean))
    assert found.standard_error == pytest.approx(math.sqrt((1 / 3 + 1 / 2) * variance))
    assert found.t == pytest.approx(2.919986, abs=1e-5)
    assert found.better
    assert sentence("lmf", None, found, None, "qwk", folds=True).endswith("over 3 folds.")


def test_folds_make_a_gain_less_sure_than_as_many_splits_would() -> None:
    candidate, reference = values(0.60, 0.62, 0.66, 0.61, 0.58), values(0.58, 0.58, 0.60, 0.60, 0.57)
    folds = Folds(of_training=range(5), held_out=0.2)
    alone = compare(candidate, reference, lower_is_better=False)
    shared = compare(candidate, reference, lower_is_better=False, folds=folds)
    assert alone.better
    assert not shared.better
    assert shared.standard_error == pytest.approx(1.5 * alone.standard_error)


def test_luck_alone_passes_about_one_time_in_twenty() -> None:
    random = np.random.default_rng(3)
    draws = random.normal(size=(2000, 2, 5))
    passed = [compare(values(*pair[0]), values(*pair[1]), lower_is_better=False).better for pair in draws]
    assert 0.035 < np.mean(passed) < 0.065


def test_the_sentence_says_which_of_the_two_it_beats() -> None:
    good = compare(values(0.6, 0.62, 0.64), values(0.5, 0.51, 0.55), lower_is_better=False)
    even = compare(values(0.6, 0.5, 0.7), values(0.5, 0.6, 0.55), lower_is_better=False)
    same = compare(values(0.6, 0.5), values(0.6, 0.5), lower_is_better=False)
    both = sentence("lmf", "ce", good, good, "qwk")
    assert both.startswith("Tuned lmf is better than its settings in params.yaml (qwk +0.1000, standard error 0.0058)")
    assert "and better than the tuned ce" in both
    assert "but not shown to be better than the tuned ce" in sentence("lmf", "ce", good, even, "qwk")
    assert sentence("lmf", "ce", even, good, "qwk").endswith("the settings are kept.")
    assert sentence("lmf", "ce", same, good, "qwk").startswith("No trial of lmf was better than its settings")
