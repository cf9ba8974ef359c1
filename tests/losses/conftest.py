"""Logits, targets and builders that the tests of the losses share."""

import numpy as np
import pytest
import torch

from raregrade.config import LOSS_PARAMS
from raregrade.labels import LabelSpace, label_statistics
from raregrade.losses import create_loss

GRADES = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
FINDINGS = LabelSpace(
    "multilabel",
    ("opacity", "fluid", "edema", "effusion"),
    (("opacity", "fluid"), ("opacity", "edema"), ("fluid", "edema"), ("fluid", "effusion")),
)
COUNTS = [6105, 3052, 1254, 865]
STATISTICS = label_statistics(np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]], dtype=float), FINDINGS)

# One setting of each loss, and more where a parameter changes the formula. dlordinal's formulas are the library's.
SETTINGS = {
    **{name: (name, {}) for name in LOSS_PARAMS if name not in ("dlordinal", "two_stage")},
    "cdw_ce dead_zone": ("cdw_ce", {"margin": 0.05}),
    "cdw_ce tighten": ("cdw_ce", {"margin": 0.05, "margin_form": "tighten"}),
    "lmf margin weights": ("lmf", {"weighting": "margin", "head": "linear"}),
    "focal weighted": ("focal", {"gamma": 0.5, "weighting": "inverse"}),
    "hbce soft": ("hbce", {"mode": "soft"}),
    "hbce data driven": ("hbce", {"penalty": "data_driven"}),
    "two_stage": ("two_stage", {"metric_weight": 0.0}),
}


def _build(setting, reduction="mean"):
    kind, params = SETTINGS[setting]
    if "multilabel" in LOSS_PARAMS[kind].tasks:
        return create_loss(kind, label_space=FINDINGS, statistics=STATISTICS, reduction=reduction, **params)
    return create_loss(kind, label_space=GRADES, class_counts=COUNTS, reduction=reduction, **params)


@pytest.fixture(params=list(SETTINGS))
def setting(request):
    """The name of each setting in turn."""
    return request.param


@pytest.fixture(params=[s for s, (kind, _) in SETTINGS.items() if "ordinal" in LOSS_PARAMS[kind].tasks])
def single_label_setting(request):
    """The name of each setting of a loss on class indices."""
    return request.param


@pytest.fixture(params=[s for s, (kind, _) in SETTINGS.items() if "multilabel" in LOSS_PARAMS[kind].tasks])
def multilabel_setting(request):
    """The name of each setting of a loss on 0/1 labels."""
    return request.param


@pytest.fixture
def build():
    """Function that builds the loss of a setting."""
    return _build


@pytest.fixture
def sample():
    """Function that draws logits [B, num_outputs] and a target that fits the loss."""

    def draw(loss, batch, dtype=torch.float64, spread=2.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        logits = spread * torch.randn(batch, loss.num_outputs, generator=generator, dtype=torch.float64)
        if loss.output == "sigmoid":
            return logits.to(dtype), (torch.rand(batch, loss.num_outputs, generator=generator) < 0.4).float()
        return logits.to(dtype), torch.randint(len(GRADES.classes), (batch,), generator=generator)

    return draw


@pytest.fixture
def grades():
    return GRADES


@pytest.fixture
def findings():
    return FINDINGS


@pytest.fixture
def statistics():
    return STATISTICS


@pytest.fixture
def counts():
    """Images of each grade, as in a public set of endoscopies."""
    return COUNTS


@pytest.fixture
def logits():
    """Four rows, the last a confident worst error for ``target``."""
    rows = [[2, 0.5, -1, -2], [0.1, 0.2, 0.3, 0.4], [-3, 1, 4, 0], [12, 0, 0, -1]]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def target():
    return torch.tensor([0, 1, 3, 3])
