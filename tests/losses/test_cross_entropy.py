"""Class weights, and the losses that are cross-entropy with weights or adjusted logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.losses.balanced_softmax import BalancedSoftmax, BalancedSoftmaxLoss
from raregrade.losses.cross_entropy import (
    CrossEntropyLoss,
    complement_frequency_weights,
    effective_number_weights,
    inverse_frequency_weights,
)

COUNTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=8)


def batch(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


def test_complement_weights_equal_the_check_values():
    weights = complement_frequency_weights([5180, 2588, 1077, 745])
    assert weights.tolist() == pytest.approx([0.1533, 0.2434, 0.2959, 0.3074], abs=5e-5)


def test_inverse_weights_give_every_class_the_same_total():
    counts = torch.tensor([100.0, 50.0, 10.0], dtype=torch.float64)
    assert (counts * inverse_frequency_weights(counts)).tolist() == pytest.approx([160 / 3] * 3)


def test_effective_number_weights_equal_their_formula():
    counts, beta = [6105, 3052, 1254, 865], 0.9999
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    assert effective_number_weights(counts, beta).tolist() == pytest.approx([4 * r / sum(raw) for r in raw], rel=1e-9)


@given(counts=COUNTS)
def test_effective_number_weights_are_equal_at_beta_0(counts):
    assert effective_number_weights(counts, 0.0).tolist() == pytest.approx([1.0] * len(counts))


def test_weighted_cross_entropy_is_torchs():
    logits, target = batch(0, 30, 4)
    weights = torch.tensor([1.0, 0.2, 3.0, 0.7], dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        expected = functional.cross_entropy(logits, target, weights, reduction=reduction)
        torch.testing.assert_close(
            CrossEntropyLoss(class_weights=weights, reduction=reduction)(logits, target), expected
        )


@given(seed=st.integers(0, 2**20), counts=COUNTS, count=st.integers(1, 1000))
def test_balanced_softmax_of_equal_classes_is_cross_entropy(seed, counts, count):
    logits, target = batch(seed, 5, len(counts))
    expected = functional.cross_entropy(logits, target)
    torch.testing.assert_close(BalancedSoftmaxLoss(BalancedSoftmax(tau=0.0), counts)(logits, target), expected)
    torch.testing.assert_close(BalancedSoftmaxLoss(BalancedSoftmax(), [count] * len(counts))(logits, target), expected)
