import pytest
import torch
from torch.nn import functional

from raregrade.losses import create_loss
from raregrade.losses.balanced_softmax import BalancedSoftmax, BalancedSoftmaxLoss
from raregrade.losses.metric import MetricLoss
from raregrade.losses.two_stage import TwoStage, TwoStageLoss

COUNTS = [50, 20, 5]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    features = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return logits, torch.arange(12) % 3, features


def test_the_first_stage_adds_the_weighted_metric_loss(inputs):
    logits, target, features = inputs
    loss = TwoStageLoss(TwoStage(metric="class_center", metric_weight=0.7, margin=0.3), COUNTS)
    metric = MetricLoss("class_center", 3, 0.3)(features, target)
    assert loss.needs_features
    expected = functional.cross_entropy(logits, target) + 0.7 * metric
    torch.testing.assert_close(loss(logits, target, features), expected)


@pytest.mark.parametrize(("metric", "name", "value"), [("class_center", "margin", 0.9), ("supcon", "temperature", 0.4)])
def test_the_parameters_of_the_metric_loss_reach_it(metric, name, value, inputs):
    logits, target, features = inputs
    loss = TwoStageLoss(TwoStage(metric=metric, **{name: value}), COUNTS)
    expected = functional.cross_entropy(logits, target) + 0.5 * MetricLoss(metric, 3, **{name: value})(features, target)
    torch.testing.assert_close(loss(logits, target, features), expected)


def test_mean_sum_and_none_agree_in_the_first_stage(inputs):
    params = TwoStage(metric="class_center")
    values = {r: TwoStageLoss(params, COUNTS, reduction=r)(*inputs) for r in ("mean", "sum", "none")}
    torch.testing.assert_close(values["none"].mean(), values["mean"])
    torch.testing.assert_close(values["none"].sum(), values["sum"])


@pytest.mark.parametrize("classifier", ["crt", "balanced_softmax", "tau_norm", "lws"])
def test_the_second_stage_trains_the_classifier_alone(classifier, inputs):
    logits, target, _ = inputs
    loss = TwoStageLoss(TwoStage(metric="class_center", classifier=classifier), COUNTS)
    loss.set_stage(1)
    assert not loss.needs_features
    assert loss.stages[1].freeze_backbone
    balanced = BalancedSoftmaxLoss(BalancedSoftmax(), COUNTS)(logits, target)
    expected = balanced if classifier == "balanced_softmax" else functional.cross_entropy(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize(
    ("classifier", "head", "sampler"),
    [
        ("crt", "new", "class_balanced"),
        ("balanced_softmax", "new", "shuffle"),
        ("lws", "scale", "class_balanced"),
        ("tau_norm", "tau_normalise", "shuffle"),
    ],
)
def test_the_stages_say_what_happens_to_head_and_batches(classifier, head, sampler, grades):
    loss = create_loss(
        "two_stage", label_space=grades, class_counts=[40, 20, 10, 5], classifier=classifier, images_per_class=8
    )
    first, second = loss.stages
    assert (first.sampler, first.images_per_class, first.freeze_backbone) == ("pk", 8, False)
    assert (second.head, second.sampler) == (head, sampler)
    assert first.share + second.share == 1
    assert (second.share == 0) == (classifier == "tau_norm")


def test_without_a_metric_term_the_first_stage_is_plain_training(inputs):
    logits, target, _ = inputs
    loss = TwoStageLoss(TwoStage(metric_weight=0.0), COUNTS)
    assert not loss.needs_features
    assert loss.stages[0].sampler == "shuffle"
    torch.testing.assert_close(loss(logits, target), functional.cross_entropy(logits, target))


def test_missing_features_and_stages_are_refused(inputs):
    logits, target, _ = inputs
    loss = TwoStageLoss(TwoStage(metric="class_center"), COUNTS)
    with pytest.raises(ValueError, match="features"):
        loss(logits, target)
    with pytest.raises(ValueError, match="stage 2"):
        loss.set_stage(2)
