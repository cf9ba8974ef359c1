"""Registering the winner of a comparison, if the gate lets it pass.

One winner, one decision, one model version. Which numbers the gate holds against which:

- floors: the metrics of the very model that would be registered, one loss with one seed;
- improvement while there is no champion: the winning loss's mean over seeds against the baseline's mean,
  since a single seed of each would compare luck;
- improvement over a champion: that model's own metrics against the champion's own, on the same images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.config import GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, GateRefusedError
from raregrade.registry.candidate import Candidate, read_candidate
from raregrade.registry.catalog import (
    CHALLENGER,
    CHAMPION,
    DATASET_TAG,
    REASONS_TAG,
    RECORD_TAG,
    WEIGHTS_TAG,
    exists,
    version_of,
    versions_of,
)
from raregrade.registry.champion import champion_of, metrics_on
from raregrade.registry.gate import GateResult, Reference, evaluate_gate
from raregrade.registry.package import check_loads_back, encode_png, log_model, noise_images, spread
from raregrade.tracking import DatasetIdentity, StepRun, Tracking, start_step
from raregrade.tracking.connection import Connection, as_user_error, connect, store_lock
from raregrade.tracking.values import safe_names

_IMAGES_CHECKED = 16


@dataclass(frozen=True)
class RegistrationResult:
    """What became of the winner.

    Attributes:
        registered: the winner is in the registry as ``version``.
        name: the registered model.
        version: None after a refusal.
        reasons: what the gate found, refusals first.
        loss: the winner's loss.
        seed: the winner's seed.
        metrics: the winner's own ``val_*`` and ``test_*`` metrics.
    """

    registered: bool
    name: str
    version: str | None
    reasons: tuple[str, ...]
    loss: str
    seed: int
    metrics: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


def register_winner(
    *,
    comparison: Path,
    models: Sequence[Path],
    data: Path | None,
    gate: Sequence[GateRule],
    name: str,
    tracking: Tracking,
) -> RegistrationResult:
    """Register the winner of ``comparison`` under ``name`` if it passes ``gate``.

    Opens the run of step ``register`` itself. A refusal is a result; nothing is registered then. The same
    weights are never registered twice: the version that has them is returned. A new version gets the alias
    ``challenger``; ``champion`` is moved by ``promote`` alone.

    Args:
        comparison: the folder that ``compare`` wrote.
        models: the model folders of all candidates.
        data: the prepared dataset. Without it, a champion from another dataset cannot be compared with, and
            the loaded-back model is checked on noise.
        gate: the rules; see ``gate.evaluate_gate``.
        name: the registered model, made where it is missing.
        tracking: where the registry is; with ``none`` the gate is applied and nothing is registered.

    Raises:
        DataError: the comparison, the models and the dataset do not belong together.
        ModelError: the winner's model folder is missing or broken, or what was registered predicts otherwise.
        UserError: the registry cannot be reached.
    """
    candidate = read_candidate(comparison, models)
    dataset = _open_dataset(data, candidate)
    if not tracking.enabled:
        verdict = evaluate_gate(gate, candidate.metrics, candidate.baseline)
        reasons = ("tracking.uri is none, so there is no registry to register in", *verdict.reasons)
        return RegistrationResult(False, name, None, reasons, candidate.loss, candidate.seed, candidate.metrics)
    with start_step(tracking, "register", name=f"register {name}", data=_identity(candidate, dataset)) as run:
        _log_candidate(run, candidate)
        connection = connect(tracking.uri, tracking.experiment)
        with store_lock(tracking.uri, f"model {name}"), as_user_error(tracking.uri):
            verdict = _judge(connection, name, candidate, gate, dataset)
            version = None
            if verdict.passed:
                version, known = _register(
                    connection, run, name=name, candidate=candidate, gate=gate, verdict=verdict, dataset=dataset
                )
                if known:
                    same = f"these weights are registered already, as version {version}"
                    verdict = GateResult(True, (*verdict.reasons, same))
        result = RegistrationResult(
            verdict.passed, name, version, verdict.reasons, candidate.loss, candidate.seed, candidate.metrics
        )
        _log_result(run, result)
        return result


def _open_dataset(data: Path | None, candidate: Candidate) -> PreparedDataset | None:
    if data is None:
        return None
    dataset = PreparedDataset.open(data)
    if dataset.content_hash != candidate.dataset_hash:
        raise DataError(
            f"{candidate.folder} was trained on dataset {candidate.dataset_hash[:12]}, {data} is "
            f"{dataset.content_hash[:12]}. Train and compare again, or give the dataset of the comparison."
        )
    return dataset


def _identity(candidate: Candidate, dataset: PreparedDataset | None) -> DatasetIdentity:
    known = candidate.card["dataset"]
    return DatasetIdentity(
        content_hash=candidate.dataset_hash,
        dvc_md5=known.get("dvc_md5"),
        source=str(known.get("source", "")),
        num_images=0 if dataset is None else len(dataset.manifest),
    )


def _judge(
    connection: Connection, name: str, candidate: Candidate, gate: Sequence[GateRule], dataset: PreparedDataset | None
) -> GateResult:
    """The gate's verdict against the champion, or against the baseline while there is none."""
    champion = champion_of(connection.client, name) if exists(connection.client, name) else None
    if champion is None:
        return evaluate_gate(gate, candidate.metrics, candidate.baseline)
    try:
        is_candidate = champion.tags.get(WEIGHTS_TAG) == candidate.weights_sha256
        metrics = metrics_on(connection.client, champion, candidate.dataset_hash, dataset)
    except GateRefusedError as err:
        return GateResult(False, (str(err),))
    reference = Reference(f"champion (version {champion.version})", metrics, candidate.metrics, is_candidate)
    return evaluate_gate(gate, candidate.metrics, reference)


def _register(
    connection: Connection,
    run: StepRun,
    *,
    name: str,
    candidate: Candidate,
    gate: Sequence[GateRule],
    verdict: GateResult,
    dataset: PreparedDataset | None,
) -> tuple[str, bool]:
    """Version of the candidate in the registry, and whether it was there before."""
    client = connection.client
    _make_registered_model(client, name, candidate)
    known = next((v for v in versions_of(client, name) if v.tags.get(WEIGHTS_TAG) == candidate.weights_sha256), None)
    if known is not None:
        if CHAMPION not in known.aliases:
            client.set_registered_model_alias(name, CHALLENGER, known.version)
        return known.version, True
    assert run.run_id is not None
    images = _images(candidate, dataset)
    logged = log_model(
        connection,
        run.run_id,
        name=f"{candidate.loss}-seed{candidate.seed}",
        folder=candidate.folder,
        card=candidate.card,
        example=encode_png(images[0]),
    )
    created = client.create_model_version(
        name,
        # Not models:/<id>: MLflow's sqlite registry would look that up at the global tracking URI.
        source=logged.artifact_location,
        run_id=run.run_id,
        model_id=logged.model_id,
        tags=_version_tags(candidate, gate, verdict),
        description=_description(candidate, verdict),
    )
    version = str(created.version)
    try:
        check_loads_back(client, version_of(client, name, version), candidate.folder, images)
    except BaseException:
        client.delete_model_version(name, version)
        raise
    client.set_registered_model_alias(name, CHALLENGER, version)
    return version, False


def _make_registered_model(client: Any, name: str, candidate: Candidate) -> None:
    from mlflow.exceptions import MlflowException

    space = candidate.card["label_space"]
    try:
        client.create_registered_model(
            name,
            tags={"raregrade.task": str(space["task"])},
            description=(
                f"Grades images: {space['task']}, {', '.join(space['classes'])}. "
                "`champion` is the version in use, `challenger` the last one that the gate let in. "
                "The tags of a version say what it was trained on and how it did."
            ),
        )
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _images(candidate: Candidate, dataset: PreparedDataset | None) -> npt.NDArray[np.uint8]:
    """Validation images on which the registered model must predict as the model folder does."""
    if dataset is None or not len(dataset.rows("val")):
        return noise_images(candidate.card, _IMAGES_CHECKED)
    return dataset.images(spread(dataset.rows("val"), _IMAGES_CHECKED))


def _version_tags(candidate: Candidate, gate: Sequence[GateRule], verdict: GateResult) -> dict[str, str]:
    """What the registry must know by itself: enough to find the data and code, and to apply the gate again."""
    known = candidate.card["dataset"]
    record = {
        "val_metrics": candidate.val_metrics,
        "rules": [rule.model_dump(mode="json") for rule in gate],
        "baseline": asdict(candidate.baseline),
    }
    names = safe_names(list(candidate.val_metrics))
    tags = {
        "loss": candidate.loss,
        "seed": str(candidate.seed),
        "backbone": str(candidate.card["backbone"]),
        WEIGHTS_TAG: candidate.weights_sha256,
        DATASET_TAG: candidate.dataset_hash,
        "raregrade.dataset.dvc_md5": known.get("dvc_md5"),
        "raregrade.dataset.source": known.get("source"),
        "raregrade.git_commit": candidate.card.get("git_commit"),
        REASONS_TAG: "\n".join(verdict.reasons),
        RECORD_TAG: json.dumps(record),
    }
    tags |= {names[name]: f"{value:.6g}" for name, value in candidate.val_metrics.items()}
    return {key: str(value) for key, value in tags.items() if value}


def _description(candidate: Candidate, verdict: GateResult) -> str:
    return (
        f"{candidate.card['backbone']} trained with {candidate.loss} (seed {candidate.seed}), winner by "
        f"{candidate.selection_metric} on validation.\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons)
    )


def _log_candidate(run: StepRun, candidate: Candidate) -> None:
    """A train or evaluate stage restored by DVC logged no run, so the winner's facts are logged here from its files."""
    card = candidate.card
    run.log_params({"loss": candidate.loss, "seed": candidate.seed, "selection_metric": candidate.selection_metric})
    run.log_params({"loss_params": card["loss"].get("params", {}), "train": card["train"]})
    run.log_metrics(candidate.metrics)


def _log_result(run: StepRun, result: RegistrationResult) -> None:
    outcome = f"registered as version {result.version}" if result.registered else "refused by the gate"
    run.set_tags({"raregrade.registered": str(result.registered).lower(), "raregrade.outcome": outcome})
    reasons = "\n".join(f"- {reason}" for reason in result.reasons)
    note = f"**{result.name}: {result.loss} (seed {result.seed}) {outcome}**\n\n{reasons}"
    run.set_tags({"mlflow.note.content": note})
    run.describe_pipeline(note, {k: v for k, v in result.metrics.items() if "_f1_" not in k and "_auroc_" not in k})
