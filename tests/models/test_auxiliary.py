"""Inception-v3's auxiliary head takes part in training, and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.auxiliary import AuxiliaryHead
from raregrade.models.backbone import Classifier, build_model
from raregrade.models.folder import load_model, save_model
from raregrade.models.heads import CosineHead, freeze, train_except


def inception(image_size: int = 75, head: str = "linear", **train: Any) -> Classifier:
    torch.manual_seed(0)
    config = TrainConfig(backbone="inception_v3", **train)
    return build_model(config, channels=3, num_outputs=4, head_kind=head, head_scale=10.0, image_size=image_size)


def pixels(size: int = 75) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)


def test_auxiliary_logits_come_in_training_alone() -> None:
    model = inception()
    outputs = model.forward_train(pixels())
    assert outputs.aux_logits is not None
    assert outputs.logits.shape == outputs.aux_logits.shape == (2, 4)
    assert outputs.features.shape == (2, model.num_features)
    model.eval()
    assert model.forward_train(pixels()).aux_logits is None


def test_the_path_of_training_gives_what_prediction_does() -> None:
    model = inception().eval()
    images = pixels()
    with torch.no_grad():
        model.backbone.training = True  # takes the path with the auxiliary head; BatchNorm stays as it is
        outputs = model.forward_train(images)
        assert outputs.aux_logits is not None
        assert torch.equal(outputs.features, model.features(images))
        assert torch.equal(outputs.logits, model(images))


def test_a_frozen_backbone_has_no_use_for_the_auxiliary_head() -> None:
    model = inception()
    freeze(model.backbone)
    train_except(model, [model.backbone])
    assert model.forward_train(pixels()).aux_logits is None


@pytest.mark.parametrize("backbone", ["inception_v3", "resnet10t"])
def test_without_weight_or_architecture_there_is_no_auxiliary_head(backbone: str) -> None:
    weight = 0.0 if backbone == "inception_v3" else 0.4
    train = TrainConfig(backbone=backbone, aux_weight=weight)
    model = build_model(train, channels=3, num_outputs=4, image_size=75)
    assert model.auxiliary is None
    assert model.forward_train(pixels()).aux_logits is None
    assert not [key for key in model.state_dict() if "aux" in key.lower()]


def test_the_auxiliary_head_is_of_the_kind_that_the_loss_asks_for() -> None:
    model = inception(head="cosine")
    assert model.auxiliary is not None
    assert isinstance(model.auxiliary.head, CosineHead)
    logits = model.forward_train(pixels()).aux_logits
    assert logits is not None
    assert logits.abs().max() <= 10.0 + 1e-4


def test_at_its_own_size_the_auxiliary_head_is_timm_s() -> None:
    """17x17 maps, of images of 299 px: no padding, the pooling of the paper."""
    block = timm.create_model("inception_v3", aux_logits=True, num_classes=4).AuxLogits.eval()
    head = AuxiliaryHead(block, block.fc).eval()
    maps = torch.rand(2, 768, 17, 17)
    with torch.no_grad():
        torch.testing.assert_close(head(maps), block(maps), rtol=1e-5, atol=1e-6)


def test_the_model_folder_holds_no_auxiliary_head_and_predicts_the_same(tmp_path: Path) -> None:
    model = inception().eval()
    card = {
        "train": TrainConfig(backbone="inception_v3").model_dump(mode="json"),
        "head": {"kind": "linear", "scale": 1.0},
        "output": "softmax",
        "num_outputs": 4,
        "label_space": {"task": "ordinal", "classes": ["a", "b", "c", "d"], "hierarchy": []},
        "image_size": 75,
        "channels": 3,
    }
    state = model.state_dict()
    assert [key for key in state if "aux" in key.lower()]
    for saved in (model, state):
        save_model(tmp_path / "model", saved, card)
        assert not [key for key in load_file(tmp_path / "model" / "weights.safetensors") if "aux" in key.lower()]
    loaded = load_model(tmp_path / "model")
    assert loaded.network.auxiliary is None
    images = pixels()
    with torch.no_grad():
        expected = model(images).numpy()
    assert (loaded.predict(images.permute(0, 2, 3, 1).numpy()) == expected).all()


@pytest.mark.parametrize(("in_file", "wanted"), [(True, True), (True, False), (False, True)])
def test_pretrained_weights_with_and_without_an_auxiliary_head_fit(tmp_path: Path, in_file: bool, wanted: bool) -> None:
    torch.manual_seed(3)
    source = timm.create_model("inception_v3", aux_logits=in_file, num_classes=9)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = inception(weights=str(tmp_path / "w.safetensors"), aux_weight=0.4 if wanted else 0.0)
    for key, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[key]), key
    assert (model.auxiliary is not None) == wanted
    if model.auxiliary is not None:
        kept = torch.equal(
            model.auxiliary.expand.conv.weight, source.state_dict().get("AuxLogits.conv1.conv.weight", torch.empty(0))
        )
        assert kept == in_file


def test_other_weights_are_refused_for_inception_too(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"weights of 'inception_v3': it misses Conv2d_1a_3x3\.conv\.weight"):
        inception(weights=str(tmp_path / "w.safetensors"))
