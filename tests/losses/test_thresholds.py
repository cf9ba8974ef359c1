"""CORAL and CORN, the losses on K - 1 thresholds."""

import pytest
import torch
from dlordinal.losses import CORNLoss as DlordinalCORN
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.losses.coral import CoralLoss
from raregrade.losses.corn import CornLoss


def batch(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes - 1, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


@given(seed=st.integers(0, 2**20), classes=st.integers(2, 7))
def test_corn_equals_dlordinal(seed, classes):
    logits, target = batch(seed, 9, classes)
    expected = DlordinalCORN(classes)(logits, target).double()
    torch.testing.assert_close(CornLoss(classes)(logits, target), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [CoralLoss, CornLoss])
def test_two_classes_are_binary_cross_entropy(loss):
    logits, target = batch(0, 20, 2)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], target.double())
    torch.testing.assert_close(loss(2)(logits, target), expected)


@pytest.mark.parametrize("loss", [CoralLoss, CornLoss])
def test_one_class_is_refused(loss):
    with pytest.raises(ValueError, match="num_classes"):
        loss(1)
