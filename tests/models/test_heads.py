import pytest
import torch
from torch import nn

from raregrade.models.heads import (
    CoralHead,
    CosineHead,
    LearnableWeightScaling,
    LinearHead,
    create_head,
    freeze,
    tau_normalise,
    tau_normalised_head,
    train_except,
)


def test_a_cosine_head_returns_scaled_cosines():
    head, features = CosineHead(5, 3, 12.0), torch.randn(7, 5)
    expected = 12 * nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(1000 * features), expected)


def test_a_cosine_head_is_safe_at_zero_and_in_half_precision():
    head = CosineHead(5, 3, 12.0)
    features = torch.zeros(2, 5, requires_grad=True)
    head(features).sum().backward()
    assert torch.isfinite(features.grad).all()
    large = torch.full((1, 5), 6e4, dtype=torch.float16)
    assert torch.isfinite(head(large)).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_a_scale_that_makes_no_sense_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        CosineHead(5, 3, scale)


def test_a_coral_head_shares_one_score_between_ordered_thresholds():
    head = CoralHead(5, 3)
    logits = head(torch.randn(7, 5))
    assert (logits[:, :-1] >= logits[:, 1:]).all()
    torch.testing.assert_close(logits - logits[:, :1], (head.bias - head.bias[0]).expand(7, 3))


def test_a_head_is_created_by_name():
    assert isinstance(create_head("linear", 5, 3), LinearHead)
    assert create_head("cosine", 5, 3, 8.0).scale == 8.0
    assert create_head("coral", 5, 3)(torch.zeros(2, 5)).shape == (2, 3)
    with pytest.raises(ValueError, match="linear, cosine, coral"):
        create_head("mlp", 5, 3)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, 2.0])
def test_tau_normalisation_divides_rows_by_a_power_of_their_length(tau):
    weight = torch.randn(4, 6, dtype=torch.float64)
    expected = torch.stack([row / row.norm() ** tau for row in weight])
    torch.testing.assert_close(tau_normalise(weight, tau), expected)


def test_a_row_of_zeros_has_no_direction():
    weight = torch.ones(3, 2)
    weight[1] = 0
    with pytest.raises(ValueError, match=r"classes \[1\]"):
        tau_normalise(weight, 0.5)
    torch.testing.assert_close(tau_normalise(weight, 0.0), weight)
    with pytest.raises(ValueError, match="matrix"):
        tau_normalise(torch.ones(3), 1.0)


def test_a_tau_normalised_head_has_no_bias_left():
    head, features = LinearHead(6, 4), torch.randn(5, 6)
    torch.testing.assert_close(tau_normalised_head(head, 1.0)(features), features @ tau_normalise(head.weight, 1.0).T)


def test_weight_scaling_trains_only_factors_and_folds_into_the_head():
    scaling = LearnableWeightScaling(LinearHead(6, 4))
    features = torch.randn(9, 6)
    torch.testing.assert_close(scaling(features), scaling.head(features))
    assert [name for name, p in scaling.named_parameters() if p.requires_grad] == ["factors"]
    with torch.no_grad():
        scaling.factors.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
    torch.testing.assert_close(scaling.folded()(features), scaling(features))


def test_a_frozen_backbone_keeps_weights_and_statistics_without_dropout():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    model = nn.Sequential(backbone, LinearHead(8, 3))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    head_before = model[1].weight.detach().clone()
    freeze(backbone)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    images = torch.randn(16, 4) + 3
    for _ in range(3):
        train_except(model, [backbone])
        assert model.training
        assert model[1].training
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(16) % 3).backward()
        optimizer.step()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(model[1].weight, head_before)


def test_without_care_batchnorm_statistics_of_a_frozen_backbone_drift():
    """The trap that ``train_except`` avoids: ``requires_grad_(False)`` alone doesn't stop the statistics."""
    backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).requires_grad_(False)
    before = backbone[1].running_mean.clone()
    backbone.train()
    backbone(torch.randn(16, 4))
    assert not torch.equal(backbone[1].running_mean, before)
