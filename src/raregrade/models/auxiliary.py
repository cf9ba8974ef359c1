"""The auxiliary head of Inception-v3: a second classifier on maps halfway through, which helps training alone.

A model folder holds no weights of it, and prediction builds none.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

_SIDE = 17  # height and width of the maps at 299 px, for which the head was made


class AuxiliaryHead(nn.Module):
    """Maps [B, 768, h, w] to logits [B, O] (Szegedy et al. 2015, arXiv 1512.00567, figure 8).

    Maps smaller than the published 17x17, of images below 299 px, are padded with zeros to that size (our choice).

    Args:
        block: timm's auxiliary classifier, of which the two convolutions are used.
        head: maps features [B, 768] to logits [B, O].
    """

    features = 768

    def __init__(self, block: Any, head: nn.Module) -> None:
        super().__init__()
        self.reduce = block.conv0
        self.expand = block.conv1
        self.head = head

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 768, h, w] -> [B, O]."""
        height, width = max(0, _SIDE - maps.shape[-2]), max(0, _SIDE - maps.shape[-1])
        if height or width:
            maps = functional.pad(maps, (width // 2, width - width // 2, height // 2, height - height // 2))
        pooled = functional.avg_pool2d(maps, kernel_size=5, stride=3)
        return cast(Tensor, self.head(self.expand(self.reduce(pooled)).mean(dim=(2, 3))))


def has_auxiliary_head(backbone: nn.Module) -> bool:
    """Whether ``backbone`` is an architecture with an auxiliary head."""
    return hasattr(backbone, "AuxLogits")


def take_auxiliary_block(backbone: Any) -> Any:
    """Part the auxiliary classifier from ``backbone``: with the weights that came with it, else a new one."""
    block = backbone.AuxLogits
    backbone.AuxLogits, backbone.aux_logits = None, False
    if block is None:
        import timm  # noqa: PLC0415

        block = timm.create_model("inception_v3", aux_logits=True, num_classes=1).AuxLogits
    return block


def features_and_maps(backbone: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, F] of normalised ``images`` [B, C, H, W], and the maps [B, 768, h, w] for the auxiliary head."""
    maps = backbone.forward_preaux(images)
    return backbone.forward_head(backbone.forward_postaux(maps), pre_logits=True), maps
