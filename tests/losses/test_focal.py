import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.losses import FocalLoss as MonaiFocalLoss
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from raregrade.losses.focal import Focal, FocalLoss
from raregrade.losses.ldam import ldam_margins


def batch(seed, size, classes, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


def test_equals_the_check_values(logits, target, counts):
    assert FocalLoss(Focal())(logits, target).item() == pytest.approx(4.488178, abs=1e-6)
    weighted = FocalLoss(Focal(), class_weights=ldam_margins(counts))
    assert weighted(logits, target).item() == pytest.approx(2.210232, abs=1e-6)


@given(seed=st.integers(0, 2**20), classes=st.integers(2, 9), spread=st.floats(0.01, 100))
def test_gamma_0_is_cross_entropy(seed, classes, spread):
    logits, target = batch(seed, 9, classes, spread)
    torch.testing.assert_close(FocalLoss(Focal(gamma=0.0))(logits, target), functional.cross_entropy(logits, target))


@given(seed=st.integers(0, 2**20), gamma=st.floats(0, 5), more=st.floats(0.1, 3))
def test_a_larger_gamma_costs_less(seed, gamma, more):
    logits, target = batch(seed, 9, 4)
    assert (
        FocalLoss(Focal(gamma=gamma + more))(logits, target) <= FocalLoss(Focal(gamma=gamma))(logits, target)
    ).item()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_equals_monai_and_torchvision_where_they_mean_the_same(gamma):
    logits, target = batch(5, 60, 4)
    # MONAI takes the mean over classes as well.
    monai = MonaiFocalLoss(include_background=True, to_onehot_y=True, use_softmax=True, gamma=gamma)
    expected = 4 * monai(logits, target[:, None]).double()
    torch.testing.assert_close(FocalLoss(Focal(gamma=gamma))(logits, target), expected, rtol=1e-5, atol=1e-6)
    # Two classes with logits (0, z) are one binary label.
    z, y = logits[:, 0], target % 2
    pairs = torch.stack([torch.zeros_like(z), z], 1)
    binary = sigmoid_focal_loss(z, y.double(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(FocalLoss(Focal(gamma=gamma))(pairs, y), binary)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.5])
def test_a_sample_that_is_certainly_right_has_a_gradient_of_zero(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    FocalLoss(Focal(gamma=gamma))(logits, torch.tensor([0])).backward()
    assert logits.grad.abs().max().item() == 0


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("inf")], [[1.0, 2.0]]])
def test_class_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="class_weights"):
        FocalLoss(Focal(), class_weights=weights)
