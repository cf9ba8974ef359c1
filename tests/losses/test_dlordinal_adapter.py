import sys

import pytest
import torch
from dlordinal import losses as dlordinal
from torch import nn

from raregrade.losses import create_loss
from raregrade.losses.dlordinal_adapter import Dlordinal, DlordinalLoss

LIBRARY = {
    "beta": lambda k: dlordinal.BetaLoss(nn.CrossEntropyLoss(), k, eta=0.7),
    "binomial": lambda k: dlordinal.BinomialLoss(nn.CrossEntropyLoss(), k, eta=0.7),
    "exponential": lambda k: dlordinal.ExponentialLoss(nn.CrossEntropyLoss(), k, eta=0.7),
    "poisson": lambda k: dlordinal.PoissonLoss(nn.CrossEntropyLoss(), k, eta=0.7),
    "triangular": lambda k: dlordinal.TriangularLoss(nn.CrossEntropyLoss(), k, eta=0.7),
    "emd": dlordinal.EMDLoss,
    "mce": lambda k: dlordinal.MCELoss(k, use_logits=True),
    "slace": lambda k: dlordinal.SLACELoss(1.3, k),
    "sord": lambda k: dlordinal.SORDLoss(1.3, k, train_targets=torch.arange(k)),
    "wk": lambda k: dlordinal.WKLoss(k, use_logits=True),
}


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=generator).to(dtype), torch.randint(4, (30,), generator=generator)


@pytest.mark.parametrize("name", LIBRARY)
def test_equals_the_library(name):
    logits, target = batch()
    ours = DlordinalLoss(Dlordinal(loss=name, eta=0.7, alpha=1.3), 4)(logits, target)
    torch.testing.assert_close(ours, LIBRARY[name](4)(logits, target).float())


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_and_the_gradient_is_finite(name, dtype):
    logits, target = batch(dtype)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DlordinalLoss(Dlordinal(loss=name), 4)(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LIBRARY)
def test_compiles_to_one_graph(name):
    logits, target = batch()
    loss = DlordinalLoss(Dlordinal(loss=name), 4)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))
    torch._dynamo.reset()


def test_weighted_kappa_takes_logits_that_sum_to_one():
    value = DlordinalLoss(Dlordinal(loss="wk"), 4)(torch.full((5, 4), 0.25), torch.tensor([0, 1, 2, 3, 0]))
    assert torch.isfinite(value)


def test_without_the_library_the_error_names_the_extra(monkeypatch, grades):
    monkeypatch.setitem(sys.modules, "dlordinal", None)
    with pytest.raises(ValueError, match=r"raregrade\[losses\]"):
        create_loss("dlordinal", label_space=grades, loss="emd")


def test_another_reduction_than_the_mean_is_refused(grades):
    with pytest.raises(ValueError, match="mean alone"):
        create_loss("dlordinal", label_space=grades, reduction="none")
