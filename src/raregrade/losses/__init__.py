"""Loss functions for ordinal, imbalanced and hierarchical labels, and the registry that builds them by name."""

from raregrade.losses.base import HeadSpec, Loss, Stage
from raregrade.losses.registry import create_loss

__all__ = ["HeadSpec", "Loss", "Stage", "create_loss"]
