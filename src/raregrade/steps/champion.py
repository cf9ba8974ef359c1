"""Step ``champion``: what a retraining starts from, read from the registry.

Recipe, splits and the model itself of the version that is champion now; while there is none, the recipe that the
parameters give. Nothing is changed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raregrade.config import CompareConfig, CompareSection, LossChoice, TrainConfig, TrainSection
from raregrade.errors import DataError, ModelError, RegistryError
from raregrade.tracking import Tracking

ALIAS = "champion"
# In comparisons the champion stands beside its successor of the same loss and seed, as something not trained there.
REFERENCE_NAME = "champion"
REFERENCE_KIND = "external"


@dataclass(frozen=True)
class Recipe:
    """What to train.

    Attributes:
        section: training and loss.
        seeds: one training each.
        compare: how the results are compared: one loss, these seeds.
        version: of the champion whose recipe it is; None for that of the parameters.
        previous: the champion's prepared dataset, whose groups keep their split; None without a champion.
    """

    section: TrainSection
    seeds: tuple[int, ...]
    compare: CompareSection
    version: str | None
    previous: Path | None


def champion(
    default: TrainSection,
    compare: CompareSection,
    name: str,
    out: Path,
    *,
    tracking: Tracking,
    store: Path | None = None,
) -> Recipe:
    """Read the champion of ``name`` and write its model folder to ``out``, an empty folder where there is none.

    Args:
        default: what is trained while there is no champion.
        compare: seeds and confidence of the comparison; its losses and baseline are replaced.
        name: the registered model.
        out: folder for the champion's model, named ``champion`` there, to be evaluated beside its successor.
        tracking: the MLflow server whose registry is read.
        store: where ``prepare --store`` kept the champion's dataset.

    Raises:
        DataError: there is a champion, and its dataset is not in ``store``: new patients could not be told from its
            own, whose splits must stay.
        ModelError: the champion was registered without a recipe.
        UserError: no registry, or it cannot be reached.
    """
    found = _download(name, tracking, out)
    if found is None:
        section, version, previous = default, None, None
        out.mkdir(parents=True, exist_ok=True)
    else:
        card, version = found
        section = _section(card, name, version)
        previous = _prepared(store, str(card["dataset"]["content_hash"]), name, version)
    loss = section.loss.name
    seeds = tuple(compare.compare.seeds)
    config = CompareConfig.model_validate(
        {**compare.compare.model_dump(mode="json"), "losses": [loss], "baseline": loss}
    )
    return Recipe(section, seeds, compare.model_copy(update={"compare": config}), version, previous)


def has_champion(folder: Path) -> bool:
    """Whether ``folder``, which ``champion`` wrote, holds a model."""
    from raregrade.models.folder import CARD

    return (folder / CARD).is_file()


def _download(name: str, tracking: Tracking, out: Path) -> tuple[dict[str, Any], str] | None:
    """Card and version of the champion, whose files are in ``out`` then; None where there is none."""
    if not tracking.enabled:
        return None
    from raregrade.models.folder import CARD, read_card
    from raregrade.registry import fetch_model, list_models

    try:
        versions = list_models(name, tracking)
    except RegistryError:  # nothing is registered under that name yet
        return None
    version = next((v.version for v in versions if ALIAS in v.aliases), None)
    if version is None:
        return None
    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        model = fetch_model(f"models:/{name}/{version}", tracking, Path(scratch))
        card = read_card(model)
        shutil.copytree(model, out, dirs_exist_ok=True)
    reference = {**card, "loss": {"name": REFERENCE_NAME, "kind": REFERENCE_KIND}, "dataset": None, "fold": None}
    (out / CARD).write_text(json.dumps(reference, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return card, version


def _section(card: dict[str, Any], name: str, version: str) -> TrainSection:
    try:
        return TrainSection(
            train=TrainConfig.model_validate_json(json.dumps(card["train"])),
            loss=LossChoice.model_validate_json(json.dumps(card["loss"])),
        )
    except (KeyError, ValueError) as err:
        raise ModelError(
            f"version {version} of {name}, the champion, does not say how it was trained, or this version of raregrade "
            f"no longer has such settings: {err}. Train and promote a new version by hand."
        ) from err


def _prepared(store: Path | None, content_hash: str, name: str, version: str) -> Path:
    from raregrade.data.known import recall

    if store is None:
        raise DataError(
            f"{name} has a champion, version {version}: give the store that holds its prepared dataset, whose patients "
            "keep their splits."
        )
    try:
        return recall(store, content_hash)
    except DataError as err:
        raise DataError(
            f"{store} does not hold dataset {content_hash[:12]}, on which version {version} of {name}, the champion, "
            "was trained. Its test patients could end up in training. Prepare it again with --store, from the same "
            "raw data and parameters."
        ) from err
