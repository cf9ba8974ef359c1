"""The rows of a split as a whole: of one model, or of the models of cross-validation that share it.

Shape legend: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.evaluation.alarms import ModelOnSplit
from raregrade.evaluation.candidates import Candidate
from raregrade.evaluation.metrics import predictions_of


@dataclass(frozen=True)
class SplitRows:
    """Every image of a split once.

    Attributes:
        targets: [N] or [N, K]; groups: [N].
        probs: [N, K], each row by the model that had not seen its fold, so without a common scale over folds.
        predicted: [N] or bool [N, K], decided as each model's report says.
    """

    targets: npt.NDArray[Any]
    groups: npt.NDArray[Any]
    probs: npt.NDArray[Any]
    predicted: npt.NDArray[Any]

    @classmethod
    def of(cls, members: Sequence[Candidate], seed: int, split: str) -> SplitRows:
        """The rows of ``split`` by the models of one loss with ``seed``; those of folds one after the other.

        The test split, which every fold's model has predicted, is that of the first.
        """
        own = [c for c in members if c.seed == seed]
        own = own if split == "val" else own[:1]
        return cls(
            np.concatenate([c.predictions.targets(split) for c in own]),
            np.concatenate([c.predictions.groups(split) for c in own]),
            np.concatenate([c.predictions.probs(split) for c in own]),
            np.concatenate(
                [predictions_of(c.predictions.probs(split), c.predictions.label_space, c.decision) for c in own]
            ),
        )

    def model(self, name: str) -> ModelOnSplit:
        """What is said of these rows, under ``name``."""
        return ModelOnSplit(name, self.probs, self.predicted)

    def sizes(self) -> dict[str, int]:
        """Number of images and groups."""
        return {"images": len(self.groups), "groups": len(set(self.groups))}
