from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.losses.ldam import DRWLoss, LDAMLoss, ldam_margins


def batch(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


def naive(logits, target, counts, *, max_margin, scale, weights):
    raw = [n**-0.25 for n in counts]
    total = []
    for row, c in zip(logits, target.tolist(), strict=True):
        shifted = row.clone()
        shifted[c] = row[c] - max_margin * raw[c] / max(raw)
        total.append(-weights[c] * torch.log_softmax(scale * shifted, 0)[c])
    return torch.stack(total)


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
    assert LDAMLoss(counts)(logits, target).item() == pytest.approx(139.248322, abs=1e-6)
    assert LDAMLoss(counts, class_weights=margins)(logits, target).item() == pytest.approx(165.232373, abs=1e-6)
    assert LDAMLoss(counts, scale=1.0)(logits, target).item() == pytest.approx(5.031455, abs=1e-6)


def test_equals_a_plain_loop(counts):
    logits, target = batch(0, 50, 4)
    weights = [1.0, 2.0, 0.5, 3.0]
    each = naive(logits, target, counts, max_margin=0.4, scale=7.0, weights=weights)
    none = LDAMLoss(counts, 0.4, 7.0, weights, reduction="none")(logits, target)
    torch.testing.assert_close(none, each)
    mean = LDAMLoss(counts, 0.4, 7.0, weights)(logits, target)
    torch.testing.assert_close(mean, each.sum() / torch.tensor(weights, dtype=torch.float64)[target].sum())


@given(seed=st.integers(0, 2**20), counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=8))
def test_zero_margin_and_scale_1_are_cross_entropy(seed, counts):
    logits, target = batch(seed, 9, len(counts))
    loss = LDAMLoss(counts, max_margin=0.0, scale=1.0)
    torch.testing.assert_close(loss(logits, target), functional.cross_entropy(logits, target))


@given(counts=st.lists(st.integers(1, 10**7), min_size=2, max_size=10), most=st.floats(0.01, 2))
def test_margins_fall_with_the_count_and_the_rarest_class_gets_the_largest(counts, most):
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
    plain = LDAMLoss(counts, 0.5, scale)(cosines, target)
    torch.testing.assert_close(LDAMLoss(counts, 0.5, scale, logit_scale=scale)(scale * cosines, target), plain)


@pytest.mark.parametrize("counts", [[10, 0, 3], [10, -1, 3], [10, float("nan"), 3]])
def test_a_class_without_images_is_refused_by_index(counts):
    with pytest.raises(ValueError, match="class 1"):
        LDAMLoss(counts)


def test_deferred_weights_start_when_their_share_of_the_epochs_has_passed():
    logits, target = batch(3, 40, 4)
    counts, weights = [100, 50, 20, 5], [0.1, 0.2, 1.0, 2.7]
    loss = DRWLoss(counts, weights, start=0.8)
    before, after = LDAMLoss(counts), LDAMLoss(counts, class_weights=weights)
    for epoch in range(10):
        loss.set_epoch(epoch, 10)
        expected = after if epoch >= 8 else before
        torch.testing.assert_close(loss(logits, target), expected(logits, target))
        torch.testing.assert_close(loss(logits.float(), target), expected(logits.float(), target))
