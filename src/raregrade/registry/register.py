"""Registering what a comparison recommends, if the gate lets it pass.

One model, one decision, one model version. Which numbers the gate holds against which:

- floors: the metrics of the very model that would be registered, one loss with one seed;
- against the baseline, while there is no champion: the loss's mean over seeds and the comparison's tests, in which
  training and patients are random, since a single seed of each would compare luck;
- against a champion: that model's own predictions against the champion's own, on the same images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.config import AlarmConfig, GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, GateRefusedError
from raregrade.evaluation.alarms import Alarm
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision, default_decision
from raregrade.models.folder import load_model
from raregrade.registry.candidate import Candidate, When, read_candidate
from raregrade.registry.catalog import (
    CHALLENGER,
    CHAMPION,
    DECISION_TAG,
    WEIGHTS_TAG,
    RegisteredVersion,
    exists,
    version_of,
    versions_of,
)
from raregrade.registry.champion import as_champion, champion_of, measure_version, recorded_metrics
from raregrade.registry.gate import Reference
from raregrade.registry.judged import NO_DATASET, NOT_WATCHED, Judged
from raregrade.registry.measured import alarms_about, held_against, measure
from raregrade.registry.package import check_loads_back, encode_png, log_model, noise_images, spread
from raregrade.registry.texts import describe, version_tags
from raregrade.tracking import DatasetIdentity, StepRun, Tracking, start_step
from raregrade.tracking.connection import Connection, as_user_error, connect, store_lock

_IMAGES_CHECKED = 16


@dataclass(frozen=True)
class RegistrationResult:
    """What became of the model that the comparison recommends.

    Attributes:
        registered: it is in the registry as ``version``.
        name: the registered model.
        version: None after a refusal.
        reasons: why it was refused, alarms first; empty where it was registered.
        remarks: why this model, what held, and what was not looked at.
        alarms: what speaks against it, sentences that begin with its loss.
        verdict: what the comparison says, in sentences.
        loss: its loss.
        seed: its seed.
        decision: its decision rule, as in its card.
        metrics: its own ``val_*`` and ``test_*`` metrics.
    """

    registered: bool
    name: str
    version: str | None
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    alarms: tuple[str, ...]
    verdict: str
    loss: str
    seed: int
    decision: dict[str, Any]
    metrics: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def register_winner(
    *,
    comparison: Path,
    models: Sequence[Path],
    data: Path | None,
    gate: Sequence[GateRule],
    name: str,
    tracking: Tracking,
    alarms: AlarmConfig | None = None,
    when: When = "clearly_better",
) -> RegistrationResult:
    """Register what ``comparison`` recommends under ``name`` if it passes ``gate`` and raises no alarm.

    Opens the run of step ``register`` itself. A refusal is a result; nothing is registered then. The same weights with
    the same decision rule are never registered twice: the version that has them is returned. A new version gets the
    alias ``challenger``; ``champion`` is moved by ``promote`` alone.

    Args:
        comparison: the folder that ``compare`` wrote.
        models: the model folders of all candidates.
        data: the prepared dataset. Without it, nothing is tested against a champion, and the loaded-back model is
            checked on noise.
        gate: the rules; see ``gate.evaluate_gate``.
        name: the registered model, made where it is missing.
        tracking: where the registry is; with ``none`` the gate is applied and nothing is registered.
        alarms: when to raise one against a champion, and whether any refuses; the defaults where None.
        when: ``clearly_better``: the loss that validation chose where the test split bears it out, else the baseline;
            ``best``: the loss that validation chose.

    Raises:
        DataError: the comparison, the models and the dataset do not belong together.
        ModelError: the model's folder is missing or broken, or what was registered predicts otherwise.
        UserError: the registry cannot be reached.
    """
    candidate = read_candidate(comparison, models, when)
    config = alarms or AlarmConfig()
    dataset = _open_dataset(data, candidate)
    if not tracking.enabled:
        judged = _against_baseline(candidate, gate, config)
        return _result(candidate, judged, name, None, "tracking.uri is none, so there is no registry to register in")
    with start_step(tracking, "register", name=f"register {name}", data=_identity(candidate, dataset)) as run:
        _log_candidate(run, candidate)
        connection = connect(tracking.uri, tracking.experiment)
        with store_lock(tracking.uri, f"model {name}"), as_user_error(tracking.uri):
            judged = _judge(connection.client, name, candidate, gate=gate, config=config, dataset=dataset)
            version = None
            if judged.verdict.passed:
                version, judged = _register(
                    connection, run, name=name, candidate=candidate, gate=gate, judged=judged, dataset=dataset
                )
        result = _result(candidate, judged, name, version)
        _log_result(run, result)
        return result


def _result(
    candidate: Candidate, judged: Judged, name: str, version: str | None, no_registry: str = ""
) -> RegistrationResult:
    return RegistrationResult(
        registered=version is not None,
        name=name,
        version=version,
        reasons=(*((no_registry,) if no_registry else ()), *judged.verdict.refusals),
        remarks=(candidate.choice, *judged.verdict.remarks),
        alarms=tuple(judged.sentences(candidate.loss)),
        verdict=candidate.advice,
        loss=candidate.loss,
        seed=candidate.seed,
        decision=candidate.decision.to_json(),
        metrics=candidate.metrics,
    )


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
    client: Any,
    name: str,
    candidate: Candidate,
    *,
    gate: Sequence[GateRule],
    config: AlarmConfig,
    dataset: PreparedDataset | None,
) -> Judged:
    """The verdict against the champion, or against the baseline while there is none."""
    champion = champion_of(client, name) if exists(client, name) else None
    if champion is None:
        return _against_baseline(candidate, gate, config)
    who, own = as_champion(champion), candidate.metrics

    def judged(reference: Reference, alarms: Sequence[Alarm] = candidate.alarms) -> Judged:
        return Judged.by(gate, own, reference, model=candidate.loss, alarms=alarms, config=config)

    if _is_same(champion, candidate):
        return judged(Reference(who, own, own, is_candidate=True))
    try:
        if dataset is None:
            recorded = recorded_metrics(champion, candidate.dataset_hash)
            return judged(Reference(who, recorded, own, untested=NO_DATASET)).remarking(NOT_WATCHED)
        theirs = measure_version(client, champion, dataset, who)
    except GateRefusedError as err:
        alone = Judged.by([], own, None, model=candidate.loss, alarms=candidate.alarms, config=config)
        return alone.refusing(str(err))
    mine = measure(load_model(candidate.folder), dataset, name=candidate.loss, decision=candidate.decision)
    return judged(held_against(mine, theirs), (*alarms_about(mine, config, theirs), *candidate.alarms))


def _against_baseline(candidate: Candidate, gate: Sequence[GateRule], config: AlarmConfig) -> Judged:
    metrics, reference = candidate.metrics, candidate.baseline
    return Judged.by(gate, metrics, reference, model=candidate.loss, alarms=candidate.alarms, config=config)


def _is_same(version: RegisteredVersion, candidate: Candidate) -> bool:
    """Whether ``version`` has the candidate's weights and decision rule."""
    if version.tags.get(WEIGHTS_TAG) != candidate.weights_sha256:
        return False
    known = version.tags.get(DECISION_TAG)
    if known is None:  # registered before decision rules were recorded
        return candidate.decision == default_decision(LabelSpace.from_json(candidate.card["label_space"]))
    return Decision.from_json(json.loads(known)) == candidate.decision


def _register(
    connection: Connection,
    run: StepRun,
    *,
    name: str,
    candidate: Candidate,
    gate: Sequence[GateRule],
    judged: Judged,
    dataset: PreparedDataset | None,
) -> tuple[str, Judged]:
    """Version of the candidate in the registry; where it was there before, the verdict says so."""
    client = connection.client
    _make_registered_model(client, name, candidate)
    known = next((v for v in versions_of(client, name) if _is_same(v, candidate)), None)
    if known is not None:
        if CHAMPION not in known.aliases:
            client.set_registered_model_alias(name, CHALLENGER, known.version)
        return known.version, judged.remarking(f"this model is registered already, as version {known.version}")
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
        tags=version_tags(candidate, gate, judged),
        description=describe(candidate, judged),
    )
    version = str(created.version)
    try:
        check_loads_back(client, version_of(client, name, version), candidate.folder, candidate.decision, images)
    except BaseException:
        client.delete_model_version(name, version)
        raise
    client.set_registered_model_alias(name, CHALLENGER, version)
    return version, judged


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


def _log_candidate(run: StepRun, candidate: Candidate) -> None:
    """A train or evaluate stage restored by DVC logged no run, so the model's facts are logged here from its files."""
    card = candidate.card
    run.log_params({"loss": candidate.loss, "seed": candidate.seed, "selection_metric": candidate.selection_metric})
    run.log_params({"loss_params": card["loss"].get("params", {}), "train": card["train"]})
    run.log_params({"decision": str(candidate.decision)})
    run.log_metrics(candidate.metrics)


def _log_result(run: StepRun, result: RegistrationResult) -> None:
    outcome = f"registered as version {result.version}" if result.registered else "refused by the gate"
    run.set_tags({"raregrade.registered": str(result.registered).lower(), "raregrade.outcome": outcome})
    sentences = result.remarks if result.registered else result.reasons
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    note = f"**{result.name}: {result.loss} (seed {result.seed}) {outcome}**\n\n{listed}\n\n{result.verdict}"
    run.set_tags({"mlflow.note.content": note})
    run.describe_pipeline(note, {k: v for k, v in result.metrics.items() if "_f1_" not in k and "_auroc_" not in k})
