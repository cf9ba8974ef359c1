import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.losses.focal import Focal, FocalLoss
from raregrade.losses.ldam import LDAMLoss, ldam_margins
from raregrade.losses.lmf import LMF, LMFLoss


def batch(seed, size, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


def test_equals_the_check_values(logits, target, counts):
    published = LMFLoss(LMF(head="linear", weighting="margin"), counts)
    assert published(logits, target).item() == pytest.approx(250.058791, abs=1e-6)
    plain = LMFLoss(LMF(head="linear", alpha=1.0), counts)
    assert plain(logits, target).item() == pytest.approx(143.736500, abs=1e-6)


@given(seed=st.integers(0, 2**20), alpha=st.floats(0, 5), beta=st.floats(0, 5), weighted=st.booleans())
def test_is_alpha_times_ldam_plus_beta_times_focal(seed, alpha, beta, weighted):
    logits, target = batch(seed, 9, 4)
    counts = [900, 300, 40, 7]
    weights = ldam_margins(counts) if weighted else None
    params = LMF(head="linear", alpha=alpha, beta=beta, weighting="margin" if weighted else "none")
    for reduction in ("mean", "sum", "none"):
        loss = LMFLoss(params, counts, reduction=reduction)
        ldam = LDAMLoss(params, counts, weights, reduction=reduction)(logits, target)
        focal = FocalLoss(Focal(), weights, reduction=reduction)(logits, target)
        torch.testing.assert_close(loss(logits, target), alpha * ldam + beta * focal)


def test_focal_sees_the_logits_of_a_cosine_head_as_they_are():
    cosines, target = batch(1, 20, 4)
    logits = 10 * torch.tanh(cosines)
    loss = LMFLoss(LMF(alpha=0.0, beta=2.0, scale=10.0), [900, 300, 40, 7])
    torch.testing.assert_close(loss(logits, target), 2 * FocalLoss(Focal())(logits, target))
