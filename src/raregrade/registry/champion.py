"""Which version is champion, and what a registered version says of a dataset: recorded, or predicted anew."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError
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
from raregrade.registry.measured import Measured, measure


def champion_of(client: Any, name: str) -> RegisteredVersion | None:
    """The version that is champion now; None where there is none. RegistryError where ``name`` is unknown."""
    version = aliases_of(client, name).get(CHAMPION)
    return None if version is None else version_of(client, name, version)


def as_champion(version: RegisteredVersion) -> str:
    """How sentences call the champion."""
    return f"the champion (version {version.version})"


def recorded_metrics(version: RegisteredVersion, dataset_hash: str) -> dict[str, float]:
    """``val_*`` metrics of ``version`` as recorded, where it was registered on the dataset with that content hash.

    Raises:
        GateRefusedError: it was registered on another one.
    """
    if version.tags.get(DATASET_TAG) != dataset_hash:
        raise GateRefusedError(
            f"version {version.version} was measured on another dataset and cannot be measured on this one without its "
            "images. Give the prepared dataset."
        )
    return version.metrics


def measure_version(client: Any, version: RegisteredVersion, dataset: PreparedDataset, name: str) -> Measured:
    """What ``version`` says of the validation and test images of ``dataset``; sentences call it ``name``.

    Raises:
        GateRefusedError: it takes other images, or has other labels.
    """
    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        model = load_model(download(client, version, MODEL_ARTIFACT, Path(scratch)))
    _check_fit(model, dataset, f"version {version.version}")
    return measure(model, dataset, name=name)


def _check_fit(model: LoadedModel, dataset: PreparedDataset, who: str) -> None:
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
