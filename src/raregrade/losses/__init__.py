"""Loss functions for ordinal, imbalanced and hierarchical labels, and the registry that builds them by name.

Importing this package imports no torch: the file of a loss does, once the loss is looked up.
"""

from raregrade.losses.definition import HeadSpec, LossDefinition, Stage, TrainingLabels
from raregrade.losses.registry import LOSSES, create_loss

__all__ = ["LOSSES", "HeadSpec", "LossDefinition", "Stage", "TrainingLabels", "create_loss"]
