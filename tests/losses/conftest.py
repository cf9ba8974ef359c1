"""Settings, labels and inputs that the tests of the losses share."""

import numpy as np
import pytest
import torch

from raregrade.labels import LabelSpace, label_statistics
from raregrade.losses import LOSSES, TrainingLabels

GRADES = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
FINDINGS = LabelSpace(
    "multilabel",
    ("opacity", "fluid", "edema", "effusion"),
    (("opacity", "fluid"), ("opacity", "edema"), ("fluid", "edema"), ("fluid", "effusion")),
)
COUNTS = [6105, 3052, 1254, 865]
STATISTICS = label_statistics(
    np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0], [0, np.nan, 0, 0]]), FINDINGS
)
NESTED = {"opacity": {"fluid": 0.4, "edema": 0.9}, "fluid": {"edema": 1.7, "effusion": 0.2}}
MARGINS = {"max_margin": 0.35, "scale": 3.0}

# Settings of each loss under which, together, every parameter has another value than its default.
SETTINGS = {
    "ce": [{}],
    "weighted_ce": [{}, {"weighting": "complement"}],
    "effective_number": [{}, {"beta": 0.99}],
    "balanced_softmax": [{}, {"tau": 0.6}],
    "focal": [{}, {"gamma": 0.5, "weighting": "inverse"}],
    "ldam": [{}, {**MARGINS, "head": "linear"}],
    "drw": [{}, {**MARGINS, "head": "linear", "beta": 0.9995, "start": 0.4}],
    "lmf": [
        {"scale": 10.0},
        {**MARGINS, "head": "linear", "alpha": 0.7, "beta": 1.9, "gamma": 2.3, "weighting": "margin"},
    ],
    "two_stage": [
        {"metric_weight": 0.0},
        {"metric_weight": 0.0, "classifier": "balanced_softmax", "classifier_share": 0.4},
        {"metric_weight": 0.0, "classifier": "tau_norm", "tau": 0.6},
    ],
    "cdw_ce": [{}, {"power": 3.0, "margin": 0.05}, {"power": 1.5, "margin": 0.05, "margin_form": "tighten"}],
    "coral": [{}],
    "corn": [{}],
    "dlordinal": [{}, {"loss": "beta", "eta": 0.4}, {"loss": "sord", "alpha": 2.0}],
    "bce": [{}],
    "weighted_bce": [{}, {"max_weight": 2.0}],
    "focal_bce": [{}, {"gamma": 0.7}],
    "asymmetric_bce": [{}, {"gamma_negative": 1.7, "gamma_positive": 0.4, "clip": 0.2}],
    "hbce": [{}, {"mode": "soft"}, {"penalty": "data_driven", "scale": 2.0}, {"penalty": NESTED, "mode": "soft"}],
}


def labels_of(kind):
    """The training labels that fit the loss ``kind``."""
    if "multilabel" in LOSSES[kind].tasks:
        return TrainingLabels(FINDINGS, STATISTICS.class_counts.tolist(), STATISTICS)
    return TrainingLabels(GRADES, COUNTS)


def _cases(task=None, without=()):
    return [
        pytest.param((kind, settings), id=f"{kind} {index}")
        for kind, every in SETTINGS.items()
        for index, settings in enumerate(every)
        if kind not in without and (task is None or task in LOSSES[kind].tasks)
    ]


# dlordinal's losses have no reduction but the mean; tests of their own hold them to the library.
@pytest.fixture(params=_cases(without=["dlordinal"]))
def setting(request):
    """Kind and parameters of each setting in turn."""
    return request.param


@pytest.fixture(params=_cases(without=["two_stage"]))
def setting_with_reference(request):
    """Kind and parameters of each setting of a loss that has a reference formula."""
    return request.param


@pytest.fixture(params=_cases("ordinal", without=["dlordinal"]))
def single_label_setting(request):
    """Kind and parameters of each setting of a loss on class indices."""
    return request.param


@pytest.fixture(params=_cases("multilabel"))
def multilabel_setting(request):
    """Kind and parameters of each setting of a loss on 0/1 labels."""
    return request.param


@pytest.fixture
def build():
    """Function that builds the loss of a setting."""

    def built(setting, reduction="mean"):
        kind, settings = setting
        return LOSSES[kind].checked(settings).build(labels_of(kind), reduction)

    return built


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


@pytest.fixture
def every_setting():
    """The settings of each loss, by its name."""
    return SETTINGS


@pytest.fixture(name="labels_of")
def labels_of_kind():
    """Function that gives the training labels which fit a loss."""
    return labels_of
