"""A timm backbone with a classification head, fed with raw pixels.

The model normalises its own input: mean and standard deviation of the training images are buffers, so
a model folder needs no word about preprocessing beyond image size and channels.

Shapes: B batch, C channels, H height, W width, F features, O outputs of the head.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.heads import create_head


class Classifier(nn.Module):
    """Pixels in, logits out.

    Args:
        backbone: maps normalised images [B, C, H, W] to features [B, F].
        head: maps features [B, F] to logits [B, O].
        channels: C.
        dropout: probability of dropping a feature before the head.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def set_normalisation(self, mean: list[float], std: list[float]) -> None:
        """Set per-channel mean and standard deviation, in pixel values 0–255."""
        self.mean.copy_(torch.tensor(mean).view_as(self.mean))
        self.std.copy_(torch.tensor(std).view_as(self.std))

    def features(self, images: Tensor) -> Tensor:
        """Features [B, F] of ``images`` [B, C, H, W], pixel values 0–255 of any dtype."""
        normalised = (images.to(self.mean.dtype) - self.mean) / self.std
        return cast(Tensor, self.backbone(normalised.contiguous(memory_format=torch.channels_last)))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, O] of ``features`` [B, F]."""
        return cast(Tensor, self.head(self.dropout(features)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, O] of ``images`` [B, C, H, W], pixel values 0–255 of any dtype."""
        return self.classify(self.features(images))


def build_model(
    train: TrainConfig,
    *,
    channels: int,
    num_outputs: int,
    head_kind: str = "linear",
    head_scale: float = 1.0,
    image_size: int | None = None,
) -> Classifier:
    """Create the model that ``train`` describes, randomly initialised from torch's global generator.

    Args:
        train: names the timm backbone, its stem, dropout, and whether pretrained weights are loaded.
        channels: 1 (grey) or 3 (RGB); the stem takes that many, pretrained or not.
        num_outputs: width of the head, as the loss declares it.
        head_kind: kind of head, as the loss declares it.
        head_scale: what a cosine head multiplies its cosines by.
        image_size: height and width of the images; transformers are built for one size (None: their own).

    Raises:
        ModelError: timm knows no such backbone, it cannot work on this input, or its weights cannot be fetched.
    """
    import timm  # noqa: PLC0415 - four seconds that reading a model card does not need

    if not timm.is_model(train.backbone):
        similar = timm.list_models(f"*{train.backbone.split('.')[0][:6]}*")[:5]
        hint = f" Similar names: {', '.join(similar)}." if similar else ""
        raise ModelError(
            f"train.backbone: timm has no model {train.backbone!r}.{hint} "
            "All of them: python -c 'import timm; print(timm.list_models())'"
        )
    config = timm.get_pretrained_cfg(train.backbone)
    size = {"img_size": image_size} if image_size is not None and getattr(config, "fixed_input_size", False) else {}
    try:
        backbone = timm.create_model(
            train.backbone, pretrained=train.pretrained, num_classes=0, in_chans=channels, **size
        )
    except Exception as err:  # timm raises whatever its hub client does
        if not train.pretrained:
            raise ModelError(
                f"train.backbone: timm cannot create {train.backbone!r} with {channels} channels: {err}"
            ) from err
        raise ModelError(
            f"train.pretrained: the weights of {train.backbone!r} could not be fetched ({type(err).__name__}: {err}). "
            "Without a network, set train.pretrained: false, or fill the hub's cache on a machine that has one."
        ) from err
    if train.stem == "small":
        _use_small_stem(backbone, train.backbone, channels)
    head = create_head(head_kind, backbone.num_features, num_outputs, head_scale)
    return Classifier(backbone, head, channels, train.dropout)


def _use_small_stem(backbone: nn.Module, name: str, channels: int) -> None:
    """Replace a ResNet's 7x7 stride-2 convolution and max-pool by one 3x3 convolution, as usual for small images."""
    first = getattr(backbone, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(backbone, "maxpool"):
        raise ModelError(
            f"train.stem: small is defined for plain ResNets (such as resnet18), not for {name!r}; use stem: timm"
        )
    stem = nn.Conv2d(channels, first.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    backbone.conv1 = stem
    backbone.maxpool = nn.Identity()
