"""From image files or bytes to grades and probabilities, with a model folder.

Images take the same way to pixels as in ``raregrade prepare``: the same decoding, resizing and cutting.
Nothing here knows about MLflow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from raregrade.data.sources.decode import load_image
from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision
from raregrade.models.folder import load_model


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        image: the path, or ``image <i>`` for bytes, counted from 1.
        grade: the class that the model's decision rule chooses; for ``multilabel`` the names of all findings that are
            present.
        probabilities: of every class, in the order of the label space.
    """

    image: str
    grade: str | list[str]
    probabilities: dict[str, float]


class Predictor:
    """A trained model that takes images as they come from a camera or an archive.

    Args:
        model_folder: what ``raregrade train`` wrote.
        device: where torch computes.

    Raises:
        ModelError: not a model folder, or a broken one.
    """

    def __init__(self, model_folder: Path, device: str = "cpu") -> None:
        self.model = load_model(model_folder, device)

    @property
    def label_space(self) -> LabelSpace:
        return self.model.label_space

    def predict(self, images: Sequence[Path | bytes], batch_size: int = 64) -> list[Prediction]:
        """Grade ``images``: files, or the content of files (PNG, JPEG …), decoded ``batch_size`` at a time.

        Raises:
            DataError: an image that cannot be read, by name.
        """
        return self._predictions(
            [_name(image, i) for i, image in enumerate(images)], self.probabilities(images, batch_size)
        )

    def predict_readable(self, files: Sequence[Path], batch_size: int = 64) -> tuple[list[Prediction], list[str]]:
        """As ``predict``, past files that cannot be read: the predictions, and what is wrong with each other file."""
        predictions: list[Prediction] = []
        problems: list[str] = []
        for start in range(0, len(files), batch_size):
            pixels: dict[str, npt.NDArray[np.uint8]] = {}
            for i, file in enumerate(files[start : start + batch_size], start):
                try:
                    pixels[str(file)] = self._pixels(file, i)
                except DataError as err:
                    problems.append(str(err))
            if pixels:
                logits = self.model.predict(np.stack(list(pixels.values())), batch_size)
                predictions += self._predictions(list(pixels), self.model.probabilities(logits))
        return predictions, problems

    def _predictions(self, names: Sequence[str], rows: npt.NDArray[np.float64]) -> list[Prediction]:
        grades = decide(rows, self.label_space, self.model.decision)
        by_class = [_by_class(row, self.label_space) for row in rows]
        return [Prediction(*each) for each in zip(names, grades, by_class, strict=True)]

    def probabilities(self, images: Sequence[Path | bytes], batch_size: int = 64) -> npt.NDArray[np.float64]:
        """Probabilities [N, K] of ``images``; see ``predict``."""
        parts = [np.zeros((0, self.label_space.num_classes))]
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = np.stack([self._pixels(image, start + i) for i, image in enumerate(batch)])
            parts.append(self.model.probabilities(self.model.predict(pixels, batch_size)))
        return np.concatenate(parts)

    def _pixels(self, image: Path | bytes, index: int) -> npt.NDArray[np.uint8]:
        color = "grey" if self.model.channels == 1 else "rgb"
        if not isinstance(image, bytes):
            return load_image(Path(image), self.model.image_size, color)
        try:  # Pillow opens a file's content as it opens a file
            return load_image(cast(Path, io.BytesIO(image)), self.model.image_size, color)
        except DataError as err:
            raise DataError(f"{_name(image, index)}: not a readable image ({len(image)} bytes)") from err


def decide(
    probabilities: npt.NDArray[np.float64], label_space: LabelSpace, decision: Decision
) -> list[str | list[str]]:
    """The grade for each row of ``probabilities`` [N, K] by ``decision``; see ``Prediction``."""
    decided = decision.decide(probabilities)
    if label_space.task == "multilabel":
        return [[name for name, present in zip(label_space.classes, row, strict=True) if present] for row in decided]
    return [label_space.classes[index] for index in decided]


def _name(image: Path | bytes, index: int) -> str:
    return f"image {index + 1}" if isinstance(image, bytes) else str(image)


def _by_class(row: npt.NDArray[np.float64], label_space: LabelSpace) -> dict[str, float]:
    return {name: float(p) for name, p in zip(label_space.classes, row, strict=True)}
