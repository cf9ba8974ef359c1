import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from raregrade.losses import create_loss
from raregrade.losses.bce import AsymmetricBCE, AsymmetricBCELoss, BCELoss, FocalBCE, FocalBCELoss

LOSSES = {
    "bce": BCELoss,
    "weighted": lambda **kw: BCELoss(positive_weights=[1.0, 2.0, 0.5, 9.0], **kw),
    "focal": lambda **kw: FocalBCELoss(FocalBCE(), **kw),
    "asymmetric": lambda **kw: AsymmetricBCELoss(AsymmetricBCE(), **kw),
}


def batch(seed, size=20):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(size, 4, generator=generator) < 0.4).double()


def test_equals_torch_where_all_labels_are_known():
    logits, target = batch(0)
    expected = functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(BCELoss()(logits, target), expected)
    weights = torch.tensor([1.0, 2.0, 0.5, 9.0], dtype=torch.float64)
    expected = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
    torch.testing.assert_close(BCELoss(positive_weights=weights)(logits, target), expected)


@given(seed=st.integers(0, 2**20), gamma=st.floats(0, 5))
def test_focal_equals_torchvision(seed, gamma):
    logits, target = batch(seed, 5)
    expected = sigmoid_focal_loss(logits, target, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(FocalBCELoss(FocalBCE(gamma=gamma))(logits, target), expected)


@given(seed=st.integers(0, 2**20))
def test_focal_and_asymmetric_without_focusing_are_bce(seed):
    logits, target = batch(seed, 5)
    expected = BCELoss()(logits, target)
    torch.testing.assert_close(FocalBCELoss(FocalBCE(gamma=0.0))(logits, target), expected)
    plain = AsymmetricBCE(gamma_negative=0.0, gamma_positive=0.0, clip=0.0)
    torch.testing.assert_close(AsymmetricBCELoss(plain)(logits, target), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_are_left_out(name):
    logits, target = batch(2, 6)
    target[0, 1] = target[0, 3] = target[4, 0] = target[5, :] = float("nan")
    each = LOSSES[name](reduction="none")(logits, target)
    alone = []
    for k in range(4):
        one = torch.full((6, 4), float("nan"), dtype=torch.float64)
        one[:, k] = target[:, k]
        alone.append(LOSSES[name](reduction="none")(logits, one))
    known = (~target.isnan()).sum(1).clamp_min(1)
    torch.testing.assert_close(each, torch.stack(alone).sum(0) / known)
    # The sixth sample has no known label: it isn't counted.
    torch.testing.assert_close(LOSSES[name]()(logits, target), each[:5].mean())


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_known_labels_gives_zero(name):
    logits = torch.randn(3, 4, requires_grad=True)
    value = LOSSES[name]()(logits, torch.full((3, 4), float("nan")))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max().item() == 0


def test_weighted_bce_weighs_positives_by_the_odds_of_the_label(findings, statistics):
    loss = create_loss("weighted_bce", label_space=findings, statistics=statistics)
    assert loss.positive_weights.tolist() == pytest.approx([1.0, 2 / 3, 2.0, 5.0])


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, float("nan")], [[1.0]]])
def test_positive_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="positive_weights"):
        BCELoss(positive_weights=weights)
