"""Better is what luck alone passes one time in twenty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raregrade.tuning.verdict import compare, sentence


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
    assert not found.better
    assert found.pairs == 1


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
