"""The winner of a comparison as the files describe it: metrics, model folder, dataset.

Reads comparison.json and model cards; knows nothing of MLflow or of the gate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raregrade.errors import DataError, ModelError
from raregrade.models.folder import read_card, weights_sha256
from raregrade.registry.gate import Reference

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Candidate:
    """The one model that won a comparison.

    Attributes:
        loss: name of its loss.
        seed: its seed.
        folder: its model folder.
        card: its model.json.
        weights_sha256: of its weights file.
        metrics: its own metrics, ``val_*`` and ``test_*``.
        baseline: what it has to beat while there is no champion.
        selection_metric: the ``val_*`` metric by which it won.
    """

    loss: str
    seed: int
    folder: Path
    card: dict[str, Any]
    weights_sha256: str
    metrics: dict[str, float]
    baseline: Reference
    selection_metric: str

    @property
    def val_metrics(self) -> dict[str, float]:
        return {name: value for name, value in self.metrics.items() if name.startswith("val_")}

    @property
    def dataset_hash(self) -> str:
        return str(self.card["dataset"]["content_hash"])


def read_candidate(comparison: Path, models: Sequence[Path]) -> Candidate:
    """The winner of ``comparison`` (a folder with comparison.json, or that file) among ``models``.

    Raises:
        DataError: comparison.json is missing or lacks something, or was made on another dataset than the model.
        ModelError: none of ``models`` has the winner's loss and seed, or two have.
    """
    path = comparison / COMPARISON if comparison.is_dir() else comparison
    content = _read(path)
    try:
        loss, seed = str(content["winner"]["loss"]), int(content["winner"]["seed"])
        baseline = str(content["baseline"])
        metrics = {
            name: entry["per_seed"][str(seed)]
            for name, entry in content["losses"][loss]["metrics"].items()
            if str(seed) in entry["per_seed"]
        }
        reference = Reference(
            name=f"baseline {baseline}",
            metrics=_means(content["losses"][baseline]["metrics"]),
            candidate=_means(content["losses"][loss]["metrics"]),
            is_candidate=loss == baseline,
        )
        selection = f"val_{content['selection_metric']}"
        dataset = content.get("dataset")
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(f"{path}: missing or wrong key: {err!r}. Run `raregrade compare` again.") from err
    folder, card = _model_of(loss, seed, models)
    candidate = Candidate(loss, seed, folder, card, weights_sha256(folder), _numbers(metrics), reference, selection)
    compared = dataset.get("content_hash") if isinstance(dataset, Mapping) else dataset
    if compared and compared != candidate.dataset_hash:
        raise DataError(
            f"{path} compares reports on dataset {str(compared)[:12]}, but {folder} was trained on "
            f"{candidate.dataset_hash[:12]}. Evaluate and compare the models again."
        )
    return candidate


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file. `raregrade compare` makes it.") from err
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise DataError(f"{path} cannot be read: {err}. Run `raregrade compare` again.") from err
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object, got {type(content).__name__}. Run `raregrade compare` again.")
    return content


def _model_of(loss: str, seed: int, models: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    cards = {folder: read_card(folder) for folder in models}
    names = {folder: (str(card["loss"]["name"]), int(card["seed"])) for folder, card in cards.items()}
    found = [folder for folder, name in names.items() if name == (loss, seed)]
    if not found:
        known = ", ".join(f"{n} seed {s}" for n, s in sorted(names.values())) or "none"
        raise ModelError(f"the winner is {loss} seed {seed}, but the models given are: {known}. Give its folder too.")
    if len(found) > 1:
        both = " and ".join(str(folder) for folder in found)
        raise ModelError(f"{both} are both {loss} seed {seed}. Give the one that was compared.")
    return found[0], cards[found[0]]


def _means(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return _numbers({name: entry["mean"] for name, entry in metrics.items()})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without the metrics that are null in JSON: undefined, as for a class that no image has."""
    return {name: float(value) for name, value in metrics.items() if value is not None}
