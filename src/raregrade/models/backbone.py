"""A timm backbone with a classification head, fed with raw pixels.

The model normalises its own input: mean and standard deviation of the training images are buffers, so
a model folder needs no word about preprocessing beyond image size and channels. Where pretrained weights
come from is known in ``raregrade.models.pretrained``.

Shapes: B batch, C channels, H height, W width, F features, O outputs of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.auxiliary import AuxiliaryHead, features_and_maps, has_auxiliary_head, take_auxiliary_block
from raregrade.models.heads import create_head
from raregrade.models.pretrained import create_pretrained, find_weights

# Tried in turn to say which image size a backbone takes that could not work on the one it was given.
_USUAL_SIZES = (28, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)


class TrainOutputs(NamedTuple):
    """What a forward pass of training returns: logits [B, O], features [B, F], an auxiliary head's logits [B, O]."""

    logits: Tensor
    features: Tensor
    aux_logits: Tensor | None


class Classifier(nn.Module):
    """Pixels in, logits out.

    Args:
        backbone: maps normalised images [B, C, H, W] to features [B, F].
        head: maps features [B, F] to logits [B, O].
        channels: C.
        dropout: probability of dropping a feature before the head.
        auxiliary: a head on the backbone's maps halfway, for training; see ``raregrade.models.auxiliary``.

    Attributes:
        initial_weights: ``source`` and ``sha256`` of the pretrained weights that the backbone began with, else None.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        channels: int,
        dropout: float = 0.0,
        auxiliary: AuxiliaryHead | None = None,
    ) -> None:
        super().__init__()
        self.initial_weights: dict[str, str] | None = None
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self.auxiliary = auxiliary
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def set_normalisation(self, mean: list[float], std: list[float]) -> None:
        """Set per-channel mean and standard deviation, in pixel values 0–255."""
        self.mean.copy_(torch.tensor(mean).view_as(self.mean))
        self.std.copy_(torch.tensor(std).view_as(self.std))

    @property
    def num_features(self) -> int:
        """F, the width of what the head takes."""
        return _feature_width(self.backbone)

    def features(self, images: Tensor) -> Tensor:
        """Features [B, F] of ``images`` [B, C, H, W], pixel values 0–255 of any dtype."""
        return cast(Tensor, self.backbone(self._normalise(images)))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, O] of ``features`` [B, F]."""
        return cast(Tensor, self.head(self.dropout(features)))

    def forward_train(self, images: Tensor) -> TrainOutputs:
        """Logits, features and auxiliary logits of ``images`` [B, C, H, W], pixel values 0–255 of any dtype.

        Auxiliary logits come of a backbone in training mode alone: not while it is frozen, nor in evaluation.
        """
        if self.auxiliary is None or not self.backbone.training:
            features = self.features(images)
            return TrainOutputs(self.classify(features), features, None)
        features, maps = features_and_maps(self.backbone, self._normalise(images))
        return TrainOutputs(self.classify(features), features, self.auxiliary(maps))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, O] of ``images`` [B, C, H, W], pixel values 0–255 of any dtype."""
        return self.classify(self.features(images))

    def _normalise(self, images: Tensor) -> Tensor:
        normalised = (images.to(self.mean.dtype) - self.mean) / self.std
        return normalised.contiguous(memory_format=torch.channels_last)


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
    backbone, initial_weights = _create_backbone(train, channels, image_size)
    if train.stem == "small":
        _use_small_stem(backbone, train.backbone, channels)
    auxiliary = None
    if has_auxiliary_head(backbone):
        block = take_auxiliary_block(backbone)
        if train.aux_weight > 0:
            auxiliary = AuxiliaryHead(block, create_head(head_kind, AuxiliaryHead.features, num_outputs, head_scale))
    if image_size is not None:
        _check_image_size(backbone, train.backbone, channels, image_size)
    head = create_head(head_kind, _feature_width(backbone), num_outputs, head_scale)
    model = Classifier(backbone, head, channels, train.dropout, auxiliary)
    model.initial_weights = initial_weights
    return model


def freeze_modules(backbone: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Stop the training of the modules of ``backbone`` named ``names``, such as ``layer1`` or ``layer4.0``.

    Their parameters need no gradients, and they are in evaluation mode, so that BatchNorm statistics stay put. A later
    ``train()`` undoes the mode: hand the modules that are returned to ``heads.train_except``.

    Raises:
        ModelError: no such module; lists those at the top of the backbone.
    """
    modules = dict(backbone.named_modules())
    frozen = []
    for name in names:
        if name not in modules or not name:
            parts = ", ".join(part for part, _ in backbone.named_children())
            raise ModelError(f"train.freeze: the backbone has no module {name!r}; its modules: {parts}")
        frozen.append(modules[name].requires_grad_(False).eval())
    return frozen


def _create_backbone(
    train: TrainConfig, channels: int, image_size: int | None
) -> tuple[nn.Module, dict[str, str] | None]:
    """The timm model without classifier, and where its weights are from, None for random ones."""
    import timm  # noqa: PLC0415 - four seconds that reading a model card does not need

    try:
        config = timm.get_pretrained_cfg(train.backbone) if timm.is_model(train.backbone) else None
    except RuntimeError as err:  # the model is known, the weights behind the dot are not
        known = ", ".join(timm.list_pretrained(f"{train.backbone.split('.')[0]}.*"))
        raise ModelError(f"train.backbone: {err} Known: {known}") from err
    if config is None:
        similar = timm.list_models(f"*{train.backbone.split('.')[0][:6]}*")[:5]
        hint = f" Similar names: {', '.join(similar)}." if similar else ""
        raise ModelError(
            f"train.backbone: timm has no model {train.backbone!r}.{hint} "
            "All of them: python -c 'import timm; print(timm.list_models())'"
        )
    options: dict[str, Any] = {}
    if image_size is not None and config.fixed_input_size:
        options["img_size"] = image_size
    file = find_weights(train)
    if file is not None:
        backbone = create_pretrained(train.backbone, file, channels=channels, **options)
        return backbone, {"source": file.source, "sha256": file.sha256()}
    try:
        return timm.create_model(train.backbone, num_classes=0, in_chans=channels, **options), None
    except Exception as err:  # timm raises whatever the model's own code does
        raise ModelError(
            f"train.backbone: timm cannot create {train.backbone!r} with {channels} channels: {err}"
        ) from err


def _feature_width(backbone: nn.Module) -> int:
    """F: wider than timm's ``num_features`` where a hidden layer belongs to the head, as in MobileNet-v3."""
    return int(cast(int, getattr(backbone, "head_hidden_size", None) or backbone.num_features))


def _check_image_size(backbone: nn.Module, name: str, channels: int, image_size: int) -> None:
    """Raise ModelError where ``backbone`` cannot work on images of this size: found here, it costs no epoch."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and image_size % patch[0] and getattr(backbone.patch_embed, "strict_img_size", False):
        smaller = image_size // patch[0] * patch[0]
        sizes = f"{smaller} or {smaller + patch[0]}" if smaller else str(patch[0])
        raise ModelError(
            f"train.backbone: {name!r} would cut the border of images of {image_size} px, which its patches of "
            f"{patch[0]} px don't divide. Set data.image_size to {sizes}, and prepare again."
        )
    try:
        shape = _feature_shape(backbone, channels, image_size)
    except (RuntimeError, ValueError, AssertionError) as err:
        fitting = (size for size in _USUAL_SIZES if size > image_size and _takes(backbone, channels, size))
        larger = next(fitting, None)
        advice = f"It takes {larger} px: set data.image_size to that or more, and prepare again" if larger else str(err)
        raise ModelError(f"train.backbone: {name!r} cannot work on images of {image_size} px. {advice}.") from err
    if shape != (1, _feature_width(backbone)):
        raise ModelError(f"train.backbone: {name!r} gives features of shape {shape}, not one vector an image")


def _takes(backbone: nn.Module, channels: int, image_size: int) -> bool:
    try:
        _feature_shape(backbone, channels, image_size)
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _feature_shape(backbone: nn.Module, channels: int, image_size: int) -> tuple[int, ...]:
    backbone.eval()
    try:
        with torch.no_grad():
            return tuple(backbone(torch.zeros(1, channels, image_size, image_size)).shape)
    finally:
        backbone.train()


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
