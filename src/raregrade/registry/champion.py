"""The champion's metrics on the dataset at hand: as recorded, or measured anew where the data have changed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError
from raregrade.evaluation.metrics import compute_metrics
from raregrade.models.folder import LoadedModel, load_model
from raregrade.registry.catalog import (
    CHAMPION,
    DATASET_TAG,
    MODEL_ARTIFACT,
    RegisteredVersion,
    aliases_of,
    download,
    version_of,
)

_ROWS_AT_ONCE = 1024


def champion_of(client: Any, name: str) -> RegisteredVersion | None:
    """The version that is champion now; None where there is none. RegistryError where ``name`` is unknown."""
    version = aliases_of(client, name).get(CHAMPION)
    return None if version is None else version_of(client, name, version)


def metrics_on(
    client: Any, champion: RegisteredVersion, dataset_hash: str, dataset: PreparedDataset | None
) -> dict[str, float]:
    """``val_*`` metrics of ``champion`` on the validation split of the dataset with that content hash.

    Recorded ones where it was registered on the same dataset; otherwise the champion predicts ``dataset``.

    Raises:
        GateRefusedError: the two cannot be compared: no dataset given, another label space, another image size.
    """
    if champion.tags.get(DATASET_TAG) == dataset_hash:
        return champion.metrics
    who = f"version {champion.version}"
    if dataset is None:
        raise GateRefusedError(
            f"{who} was measured on another dataset and cannot be measured on this one without its images. "
            "Give the prepared dataset."
        )
    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        model = load_model(download(client, champion, MODEL_ARTIFACT, Path(scratch)))
    if model.label_space != dataset.label_space:
        raise GateRefusedError(
            f"{who} grades {model.label_space.task} {', '.join(model.label_space.classes)}, the dataset is "
            f"{dataset.label_space.task} {', '.join(dataset.label_space.classes)}: the two cannot be compared. "
            "Register under another name."
        )
    if (model.image_size, model.channels) != (dataset.image_size, dataset.channels):
        raise GateRefusedError(
            f"{who} takes images of {model.image_size} px and {model.channels} channels, the dataset has "
            f"{dataset.image_size} px and {dataset.channels}: the two cannot be compared. Register under another name."
        )
    return _score(model, dataset)


def _score(model: LoadedModel, dataset: PreparedDataset) -> dict[str, float]:
    rows = dataset.rows("val")
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    logits = np.concatenate([model.predict(dataset.images(part)) for part in parts])
    metrics = compute_metrics(dataset.targets(rows), model.probabilities(logits), dataset.label_space)
    return {f"val_{name}": value for name, value in metrics.items()}
