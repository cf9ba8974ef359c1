import inspect

import pytest
import torch

from raregrade.config import LOSS_PARAMS
from raregrade.labels import LabelSpace
from raregrade.losses import HeadSpec, create_loss
from raregrade.losses.cdw_ce import CDWCELoss
from raregrade.losses.focal import FocalLoss
from raregrade.losses.hbce import HBCELoss
from raregrade.losses.ldam import LDAMLoss
from raregrade.losses.lmf import LMFLoss
from raregrade.models.outputs import OUTPUTS


def test_every_name_builds_with_its_defaults_for_every_task_it_fits(grades, findings, counts, statistics):
    spaces = {"ordinal": grades, "multiclass": LabelSpace("multiclass", grades.classes), "multilabel": findings}
    for name, params in LOSS_PARAMS.items():
        for task in params.tasks:
            given = {"statistics": statistics} if task == "multilabel" else {"class_counts": counts}
            loss = create_loss(name, label_space=spaces[task], **given)
            assert loss.num_outputs == (3 if loss.output in ("corn", "coral") else 4)
            assert loss.output in OUTPUTS
            assert loss.stages


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CDWCELoss, {"power": 5.0, "margin": 0.0, "margin_form": "dead_zone"}),
        (LDAMLoss, {"max_margin": 0.5, "scale": 30.0, "class_weights": None}),
        (FocalLoss, {"gamma": 1.5, "class_weights": None}),
        (
            LMFLoss,
            {"alpha": 1.5, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 30.0, "weighting": "none"},
        ),
        (HBCELoss, {"penalty": 0.5, "mode": "hard", "scale": 1.0}),
    ],
)
def test_the_classes_have_the_documented_defaults(loss, expected):
    parameters = inspect.signature(loss).parameters
    assert {name: parameters[name].default for name in expected} == expected


def test_parameters_reach_the_loss(grades, counts):
    loss = create_loss("cdw_ce", label_space=grades, class_counts=counts, power=3.0)
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(loss(logits, target), CDWCELoss(3.0)(logits, target))


@pytest.mark.parametrize("name", ["ldam", "drw", "lmf"])
def test_margin_losses_ask_for_a_cosine_head_and_do_not_scale_twice(name, grades, counts):
    loss = create_loss(name, label_space=grades, class_counts=counts, scale=10.0)
    linear = create_loss(name, label_space=grades, class_counts=counts, scale=10.0, head="linear")
    assert loss.head == HeadSpec("cosine", 10.0)
    assert linear.head == HeadSpec("linear")
    cosines, target = torch.rand(9, 4) - 0.5, torch.arange(9) % 4
    if name == "lmf":  # the focal term sees the logits of its head: compare the margin terms alone
        loss.beta = linear.beta = 0.0
    torch.testing.assert_close(loss(10 * cosines, target), linear(cosines, target))


def test_class_counts_come_from_the_statistics_where_none_are_given(findings, statistics):
    assert create_loss("weighted_bce", label_space=findings, statistics=statistics).num_outputs == 4


def test_an_unknown_name_is_refused_with_the_nearest(grades):
    with pytest.raises(ValueError, match=r"unknown loss 'cdwce' \(did you mean 'cdw_ce'\?\)"):
        create_loss("cdwce", label_space=grades)


def test_an_unknown_or_wrong_parameter_is_refused_with_what_is_allowed(grades, counts):
    with pytest.raises(ValueError, match=r"cdw_ce.alpha: unknown parameter; allowed: power, margin, margin_form"):
        create_loss("cdw_ce", label_space=grades, alpha=5.0)
    with pytest.raises(ValueError, match=r"lmf.gamma = -1"):
        create_loss("lmf", label_space=grades, class_counts=counts, gamma=-1)


def test_a_loss_that_does_not_fit_the_task_is_refused(findings):
    with pytest.raises(ValueError, match="cdw_ce fits task ordinal, not multilabel"):
        create_loss("cdw_ce", label_space=findings)


def test_missing_counts_are_refused(grades):
    with pytest.raises(ValueError, match="lmf needs the class counts"):
        create_loss("lmf", label_space=grades)
    with pytest.raises(ValueError, match="3 class counts for 4 classes"):
        create_loss("lmf", label_space=grades, class_counts=[1, 2, 3])


@pytest.mark.parametrize("name", ["weighted_ce", "effective_number", "balanced_softmax", "ldam", "drw", "lmf"])
def test_a_class_absent_from_training_is_refused_by_name(name, grades):
    with pytest.raises(ValueError, match="severe: 0"):
        create_loss(name, label_space=grades, class_counts=[10, 5, 2, 0])


@pytest.mark.parametrize("name", ["ce", "focal", "cdw_ce", "coral", "corn"])
def test_losses_without_counts_take_an_absent_class(name, grades):
    assert create_loss(name, label_space=grades, class_counts=[10, 5, 2, 0]).num_outputs in (3, 4)
