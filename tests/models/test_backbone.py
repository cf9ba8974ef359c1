"""Any timm backbone takes raw pixels; wrong names and stems are refused with a hint."""

import pytest
import torch
from torch import nn

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.backbone import build_model, freeze_modules
from raregrade.models.heads import train_except


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_pixels_become_logits(channels: int, head: str) -> None:
    model = build_model(
        TrainConfig(backbone="resnet10t"), channels=channels, num_outputs=5, head_kind=head, head_scale=10.0
    ).eval()
    model.set_normalisation([100.0] * channels, [50.0] * channels)
    pixels = torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8)
    logits = model(pixels)
    assert logits.shape == (2, 5)
    assert torch.allclose(logits, model(pixels.float()))
    assert head == "linear" or logits.abs().max() <= 10.0 + 1e-4


def test_normalisation_is_part_of_the_model() -> None:
    model = build_model(TrainConfig(backbone="resnet10t"), channels=1, num_outputs=2).eval()
    pixels = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    model.set_normalisation([0.0], [1.0])
    by_hand = (pixels.float() - 120.0) / 40.0
    expected = model(by_hand)
    model.set_normalisation([120.0], [40.0])
    assert torch.allclose(model(pixels), expected, atol=1e-5)


def test_the_small_stem_keeps_the_resolution_of_small_images() -> None:
    model = build_model(TrainConfig(backbone="resnet18", stem="small"), channels=3, num_outputs=2)
    assert model.backbone.forward_features(torch.zeros(1, 3, 28, 28)).shape[-2:] == (4, 4)


def test_a_transformer_is_built_for_the_size_of_the_images() -> None:
    train = TrainConfig(backbone="vit_tiny_patch16_224")
    model = build_model(train, channels=1, num_outputs=3, image_size=64).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 3)


def test_an_unknown_backbone_is_refused_with_similar_names() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet19'.*resnet"):
        build_model(TrainConfig(backbone="resnet19"), channels=3, num_outputs=2)


def test_the_small_stem_is_refused_where_it_is_not_defined() -> None:
    with pytest.raises(ModelError, match="plain ResNets"):
        build_model(TrainConfig(backbone="mobilenetv3_small_050", stem="small"), channels=3, num_outputs=2)


# Image size: the smallest usual one that the network takes, so that a step is quick.
BACKBONES = [
    ("resnet18", 32),
    ("resnet50", 32),
    ("densenet121", 32),
    ("inception_v3", 75),
    ("mobilenetv3_large_100", 32),
    ("tf_efficientnetv2_s", 32),
    ("vit_tiny_patch16_224", 32),
]


@pytest.mark.parametrize(("name", "size"), BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_step_trains_every_weight(name: str, size: int, channels: int) -> None:
    torch.manual_seed(0)
    model = build_model(TrainConfig(backbone=name), channels=channels, num_outputs=3, image_size=size)
    model.set_normalisation([120.0] * channels, [60.0] * channels)
    with torch.no_grad():
        for parameter in model.parameters():  # ResNets begin with zeros that let no gradient through to some weights
            parameter.add_(0.01 * torch.rand_like(parameter))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    images = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    target = torch.tensor([0, 1, 2, 0])
    outputs = model.forward_train(images)
    assert outputs.logits.shape == (4, 3)
    assert outputs.features.shape == (4, model.num_features)
    assert (outputs.aux_logits is not None) == (name == "inception_v3")
    loss = nn.functional.cross_entropy(outputs.logits, target)
    if outputs.aux_logits is not None:
        loss = loss + 0.4 * nn.functional.cross_entropy(outputs.aux_logits, target)
    loss.backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert not torch.equal(parameter, before[key]), key
    assert torch.isfinite(model.eval()(images)).all()


@pytest.mark.parametrize(("name", "size", "takes"), [("inception_v3", 64, 75), ("densenet121", 28, 32)])
def test_images_too_small_for_a_backbone_name_a_size_that_works(name: str, size: int, takes: int) -> None:
    with pytest.raises(
        ModelError, match=rf"'{name}' cannot work on images of {size} px. It takes {takes} px"
    ) as caught:
        build_model(TrainConfig(backbone=name), channels=3, num_outputs=2, image_size=size)
    assert "set data.image_size to that or more" in str(caught.value)
    assert build_model(TrainConfig(backbone=name), channels=3, num_outputs=2, image_size=takes).training


def test_a_transformer_refuses_images_that_its_patches_do_not_divide() -> None:
    with pytest.raises(ModelError, match=r"would cut the border of images of 70 px.* patches of 16 px.* to 64 or 80"):
        build_model(TrainConfig(backbone="vit_tiny_patch16_224"), channels=3, num_outputs=2, image_size=70)


def test_checking_the_image_size_changes_no_weights() -> None:
    states = []
    for image_size in (None, 32):
        torch.manual_seed(0)
        states.append(
            build_model(
                TrainConfig(backbone="resnet10t"), channels=3, num_outputs=2, image_size=image_size
            ).state_dict()
        )
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_frozen_modules_keep_weights_and_batchnorm_statistics() -> None:
    model = build_model(TrainConfig(backbone="resnet10t"), channels=3, num_outputs=2)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    frozen = freeze_modules(model.backbone, ["conv1", "bn1", "layer1", "layer4.0"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    train_except(model, frozen)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randint(0, 256, (4, 3, 32, 32))).square().sum().backward()
        optimizer.step()
    after = model.backbone.state_dict()
    for key, value in before.items():
        kept = key.startswith(("conv1.", "bn1.", "layer1.", "layer4.0."))
        assert torch.equal(after[key], value) == kept, key


@pytest.mark.parametrize("name", ["layer9", ""])
def test_an_unknown_module_to_freeze_is_refused_with_the_known_ones(name: str) -> None:
    model = build_model(TrainConfig(backbone="resnet10t"), channels=3, num_outputs=2)
    with pytest.raises(ModelError, match=rf"no module '{name}'; its modules: conv1, bn1, .*layer4"):
        freeze_modules(model.backbone, [name])
