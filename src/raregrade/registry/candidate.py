"""The model that a comparison recommends, as the files describe it: metrics, alarms, model folder, dataset.

Reads comparison.json and model cards; knows nothing of MLflow or of what the gate asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raregrade.errors import DataError, ModelError
from raregrade.evaluation.alarms import Alarm
from raregrade.evaluation.words import alarm_texts
from raregrade.models.decisions import Decision, with_decision
from raregrade.models.folder import read_card, weights_sha256
from raregrade.registry.gate import PairedDifference, Reference

COMPARISON = "comparison.json"
SCHEMA = 2
When = Literal["clearly_better", "best"]


@dataclass(frozen=True)
class Candidate:
    """The one model of a comparison that may be registered.

    Attributes:
        loss: name of its loss.
        seed: its seed.
        folder: its model folder.
        card: its model.json, with the decision rule that the comparison judged it by.
        weights_sha256: of its weights file.
        decision: how it decides.
        metrics: its own metrics, ``val_*`` and ``test_*``.
        alarms: what the comparison found against it, alone and against the baseline.
        baseline: what it is held against while there is no champion.
        selection_metric: the ``val_*`` metric by which losses were chosen.
        advice: the verdict of the comparison, in sentences.
        choice: why this model and no other, as a sentence.
    """

    loss: str
    seed: int
    folder: Path
    card: dict[str, Any]
    weights_sha256: str
    decision: Decision
    metrics: dict[str, float]
    alarms: tuple[Alarm, ...]
    baseline: Reference
    selection_metric: str
    advice: str
    choice: str

    @property
    def val_metrics(self) -> dict[str, float]:
        return {name: value for name, value in self.metrics.items() if name.startswith("val_")}

    @property
    def dataset_hash(self) -> str:
        return str(self.card["dataset"]["content_hash"])


def read_candidate(comparison: Path, models: Sequence[Path], when: When = "clearly_better") -> Candidate:
    """The model that ``comparison`` (a folder with comparison.json, or that file) recommends, among ``models``.

    Args:
        comparison: what ``raregrade compare`` wrote.
        models: model folders.
        when: ``clearly_better`` takes what validation chose where the test split bears it out and no alarm is raised,
            else the baseline; ``best`` takes what validation chose.

    Raises:
        DataError: comparison.json is missing, lacks something, is of an earlier form, or was made on another dataset
            than the model.
        ModelError: none of ``models`` has that loss and seed, or two have.
    """
    path = comparison / COMPARISON if comparison.is_dir() else comparison
    content = _read(path)
    try:
        chosen = content["recommended" if when == "clearly_better" else "winner"]
        loss, seed = str(chosen["loss"]), int(chosen["seed"])
        decision = Decision.from_json(chosen["decision"])
        entry = content["losses"][loss]
        metrics = {
            name: found["per_seed"][str(seed)]
            for name, found in entry["metrics"].items()
            if str(seed) in found["per_seed"]
        }
        alarms = tuple(Alarm.from_json(alarm) for alarm in entry["alarms"])
        reference = _baseline(content, loss)
        selection = f"val_{content['selection_metric']}"
        advice, choice = str(content["advice"]), _choice(content, loss)
        dataset = content.get("dataset")
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(f"{path}: missing or wrong key: {err!r}. Run `raregrade compare` again.") from err
    folder, card = _model_of(loss, seed, models)
    candidate = Candidate(
        loss=loss,
        seed=seed,
        folder=folder,
        card=with_decision(card, decision),
        weights_sha256=weights_sha256(folder),
        decision=decision,
        metrics=_numbers(metrics),
        alarms=alarms,
        baseline=reference,
        selection_metric=selection,
        advice=advice,
        choice=choice,
    )
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
    if content.get("schema") != SCHEMA:
        raise DataError(
            f"{path}: schema {content.get('schema')!r} is not {SCHEMA}: it was made by another version of raregrade. "
            "Run `raregrade compare` again."
        )
    return content


def _baseline(content: Mapping[str, Any], loss: str) -> Reference:
    """The baseline's means over seeds, and the tests of the loss against it."""
    baseline, entry = str(content["baseline"]), content["losses"][loss]
    # What would prove nothing about the loss, such as a lead over a baseline that was not tuned, is no test.
    objection = str(content["claim"]["objection"]) if content["claim"]["loss"] == loss else ""
    differences, untested = {}, objection or "the comparison has no such test"
    for name, found in entry["difference"].items() if not objection else ():
        if found["patients_only"]:
            untested = (
                "one seed does not tell how far training alone moves it; compare at least two seeds, better three"
            )
        else:
            differences[name] = PairedDifference(float(found["mean"]), float(found["se"]), found["df"])
    return Reference(
        name=f"the baseline {baseline}",
        metrics=_means(content["losses"][baseline]["metrics"]),
        candidate=_means(entry["metrics"]),
        is_candidate=loss == baseline,
        differences=differences,
        untested=untested,
    )


def _choice(content: Mapping[str, Any], loss: str) -> str:
    """Why ``loss`` is what would be registered."""
    winner, baseline, verdict = str(content["winner"]["loss"]), str(content["baseline"]), content["claim"]["verdict"]
    if loss != winner:
        against = alarm_texts(content["losses"][winner]["alarms"])[:1]
        against += ["is not shown to be better"] if verdict != "better" else []
        return f"{loss}, the baseline, is taken: {winner}, which validation chose, {' and '.join(against)}"
    if verdict == "alone":
        return f"{loss} is taken: no other loss was compared"
    if verdict == "better":
        return f"{loss} is taken: validation chose it, and the test split shows it to be better than {baseline}"
    if verdict == "baseline":
        return f"{loss}, the baseline, is taken: validation chose it"
    return f"{loss} is taken because validation chose it, although it is not shown to be better than {baseline}"


def _model_of(loss: str, seed: int, models: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    cards = {folder: read_card(folder) for folder in models}
    names = {folder: (str(card["loss"]["name"]), int(card["seed"])) for folder, card in cards.items()}
    found = [folder for folder, name in names.items() if name == (loss, seed)]
    if not found:
        known = ", ".join(f"{n} seed {s}" for n, s in sorted(names.values())) or "none"
        raise ModelError(
            f"the comparison recommends {loss} seed {seed}, but the models given are: {known}. Give its folder too."
        )
    if len(found) > 1:
        both = " and ".join(str(folder) for folder in found)
        raise ModelError(f"{both} are both {loss} seed {seed}. Give the one that was compared.")
    return found[0], cards[found[0]]


def _means(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return _numbers({name: entry["mean"] for name, entry in metrics.items()})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without the metrics that are null in JSON: undefined, as for a class that no image has."""
    return {name: float(value) for name, value in metrics.items() if value is not None}
