"""Metric losses on normalised embeddings: they pull images of one class together and push classes apart.

They accompany a loss on logits in a first stage of training. All but ``class_center`` are pytorch-metric-learning's,
composed here; anchors without a positive or a negative in the batch are skipped, and a batch without any gives 0 with
a gradient of 0.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import raise_precision

MetricName = Literal["batch_hard", "semi_hard", "supcon", "npairs", "class_center"]


class MetricLoss(nn.Module):
    """A metric loss by name, on embeddings that it normalises to unit length.

    Args:
        name: ``batch_hard`` and ``semi_hard`` are triplet losses with the margin, ``supcon`` the supervised contrastive
            loss with the temperature, ``npairs`` the N-pairs loss, ``class_center`` a triplet loss to class centres.
        num_classes: C.
        margin: of the triplet losses, in distances of unit vectors.
        temperature: of ``supcon``.

    Raises:
        UserError: pytorch-metric-learning isn't installed.
    """

    def __init__(self, name: MetricName, num_classes: int, margin: float = 0.2, temperature: float = 0.1) -> None:
        super().__init__()
        self.name, self.num_classes, self.margin = name, num_classes, margin
        self.miner: Any = None
        self.loss: Any = None
        if name != "class_center":
            self.miner, self.loss = _library_loss(name, margin, temperature)

    def forward(self, embeddings: Tensor, target: Tensor) -> Tensor:
        """``embeddings`` [B, D], ``target`` int64 [B] -> scalar, the mean over the anchors that count."""
        if embeddings.dim() != 2 or target.dim() != 1 or len(embeddings) != len(target):
            raise UserError(
                f"expected embeddings [B, D] and target [B], got {list(embeddings.shape)} and {list(target.shape)}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = functional.normalize(raise_precision(embeddings), dim=1)
            if self.loss is None:
                return class_center_triplet(unit, target, self.num_classes, self.margin)
            triplets = None if self.miner is None else self.miner(unit, target)
            value: Tensor = self.loss(unit, target, triplets)
            return value


def class_center_triplet(embeddings: Tensor, target: Tensor, num_classes: int, margin: float) -> Tensor:
    """Mean over anchors of [margin + d(f, c_y) - min_{j != y} d(f, c_j)]_+ , c_j the class means of the batch.

    Positive and negative of a triplet replaced by class centres, after the class-centre triplets of arXiv 2207.04793;
    centres from the batch, Euclidean distances and the nearest other centre are our choice. Anchors that are alone in
    their class are skipped, since they are their own centre.

    Args:
        embeddings: [B, D].
        target: int64 [B].
    """
    member = functional.one_hot(target, num_classes).to(embeddings.dtype)
    counts = member.sum(0)
    centers = (member.T @ embeddings) / counts.clamp_min(1.0)[:, None]
    squared = (embeddings[:, None, :] - centers[None, :, :]).square().sum(2)
    # The root's derivative is infinite at 0, where an embedding is its class's centre.
    distance = squared.clamp_min(torch.finfo(embeddings.dtype).eps ** 2).sqrt()
    positive = (distance * member).sum(1)
    other = (member == 0) & (counts > 0)
    nearest = torch.where(other, distance, torch.inf).amin(1)
    counted = other.any(1) & (counts.index_select(0, target) > 1)
    # An anchor that isn't counted has no finite nearest centre: it is replaced before the subtraction, not after it.
    nearest = torch.where(counted, nearest, positive)
    terms = (margin + positive - nearest).clamp_min(0.0) * counted
    return terms.sum() / counted.sum().clamp_min(1)


def _library_loss(name: MetricName, margin: float, temperature: float) -> tuple[Any, Any]:
    """Miner (or None) and loss of pytorch-metric-learning."""
    try:
        from pytorch_metric_learning import losses, miners, reducers
    except ImportError as err:
        raise UserError(
            f"the metric loss {name} needs pytorch-metric-learning: pip install 'raregrade[losses]', "
            "or use metric: class_center"
        ) from err
    if name == "supcon":
        return None, losses.SupConLoss(temperature=temperature)
    if name == "npairs":
        return None, losses.NPairsLoss()
    # The mean over all mined triplets; the library's default leaves out those that cost nothing.
    triplet = losses.TripletMarginLoss(margin=margin, reducer=reducers.MeanReducer())
    if name == "batch_hard":
        return miners.BatchHardMiner(), triplet
    return miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard"), triplet
