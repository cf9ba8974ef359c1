from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.losses.cross_entropy import effective_number_weights
from raregrade.losses.ldam import DRW, LDAM, DRWLoss, LDAMLoss, ldam_margins

LINEAR = LDAM(head="linear")


def batch(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize(
    ("counts", "margins"),
    [
        ([6105, 3052, 1254, 865], [0.30676, 0.36482, 0.45567, 0.5]),
        ([5180, 2588, 1077, 745], [0.30791, 0.36624, 0.45599, 0.5]),
    ],
)
def test_margins_equal_the_check_values(counts, margins):
    assert ldam_margins(counts).tolist() == pytest.approx(margins, abs=5e-6)


def test_equals_the_check_values(logits, target, counts):
    margins = ldam_margins(counts)
    assert LDAMLoss(LINEAR, counts)(logits, target).item() == pytest.approx(139.248322, abs=1e-6)
    assert LDAMLoss(LINEAR, counts, margins)(logits, target).item() == pytest.approx(165.232373, abs=1e-6)
    assert LDAMLoss(LDAM(head="linear", scale=1.0), counts)(logits, target).item() == pytest.approx(5.031455, abs=1e-6)


@given(seed=st.integers(0, 2**20), counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=8))
def test_zero_margin_and_scale_1_are_cross_entropy(seed, counts):
    logits, target = batch(seed, 9, len(counts))
    loss = LDAMLoss(LDAM(head="linear", max_margin=0.0, scale=1.0), counts)
    torch.testing.assert_close(loss(logits, target), functional.cross_entropy(logits, target))


@given(counts=st.lists(st.integers(1, 10**7), min_size=2, max_size=10), most=st.floats(0.01, 2))
def test_the_rarer_the_class_the_larger_its_margin(counts, most):
    margins = ldam_margins(counts, most)
    order = sorted(range(len(counts)), key=counts.__getitem__)
    assert margins[order[0]].item() == pytest.approx(most)
    assert all(margins[a] >= margins[b] for a, b in pairwise(order))


def test_equally_frequent_classes_get_equal_margins():
    assert ldam_margins([70, 70, 70], 0.3).tolist() == pytest.approx([0.3, 0.3, 0.3])


@given(seed=st.integers(0, 2**20), scale=st.floats(1, 50))
def test_a_cosine_head_that_already_scales_gives_the_same_loss(seed, scale):
    cosines, target = batch(seed, 9, 4)
    cosines = torch.tanh(cosines)
    counts = [100, 50, 20, 5]
    plain = LDAMLoss(LDAM(head="linear", scale=scale), counts)(cosines, target)
    torch.testing.assert_close(LDAMLoss(LDAM(scale=scale), counts)(scale * cosines, target), plain)


@pytest.mark.parametrize("counts", [[10, 0, 3], [10, -1, 3], [10, float("nan"), 3]])
def test_a_class_without_images_is_refused_by_index(counts):
    with pytest.raises(ValueError, match="class 1"):
        LDAMLoss(LDAM(), counts)


def test_weights_start_when_their_share_of_the_epochs_has_passed():
    logits, target = batch(3, 40, 4)
    counts, params = [100, 50, 20, 5], DRW(beta=0.99, start=0.6)
    loss = DRWLoss(params, counts)
    before, after = LDAMLoss(params, counts), LDAMLoss(params, counts, effective_number_weights(counts, 0.99))
    for epoch in range(10):
        loss.set_epoch(epoch, 10)
        expected = after if epoch >= 6 else before
        torch.testing.assert_close(loss(logits, target), expected(logits, target))
        torch.testing.assert_close(loss(logits.float(), target), expected(logits.float(), target))
