"""Any timm backbone takes raw pixels; wrong names and stems are refused with a hint."""

import pytest
import torch

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.backbone import build_model


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


def test_weights_that_cannot_be_fetched_are_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    # The hub's client reads its environment when it is imported, which may have been long ago.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"could not be fetched.*pretrained: false"):
        build_model(TrainConfig(backbone="resnet10t", pretrained=True), channels=3, num_outputs=2)
