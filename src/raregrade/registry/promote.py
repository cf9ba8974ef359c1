"""Moving the aliases of registered versions: promote through the gate, and rollback.

Two moves at once are kept apart by a lock on this machine. How versions come into the registry is the
business of ``register``.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from raregrade.config import AlarmConfig, GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError, RegistryError
from raregrade.evaluation.alarms import Alarm
from raregrade.registry.catalog import (
    CHAMPION,
    DATASET_TAG,
    RegisteredVersion,
    aliases_of,
    registered_model,
    version_of,
    versions_of,
)
from raregrade.registry.champion import as_champion, champion_of, measure_version, recorded_metrics
from raregrade.registry.gate import GateResult, Reference
from raregrade.registry.history import HISTORY_TAG, Move, read_history, versions_before, write_history
from raregrade.registry.judged import NO_DATASET, NOT_WATCHED, Judged
from raregrade.registry.measured import alarms_about, held_against
from raregrade.tracking import Tracking
from raregrade.tracking.connection import as_user_error, open_client, store_lock


@dataclass(frozen=True)
class PromotionResult:
    """Where an alias points.

    Attributes:
        name: the registered model.
        alias: the alias.
        version: the version that was asked for; the alias points to it if ``moved``.
        previous: what the alias pointed to before; None where it did not exist.
        moved: False in a dry run, and where the alias pointed there already.
        remarks: what held, and what was not looked at.
    """

    name: str
    alias: str
    version: str
    previous: str | None
    moved: bool
    remarks: tuple[str, ...]


def promote(
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    tracking: Tracking,
    gate: Sequence[GateRule] | None = None,
    alarms: AlarmConfig | None = None,
    data: Path | None = None,
    dry_run: bool = False,
) -> PromotionResult:
    """Point ``alias`` at ``version``, if the gate lets it against the champion of this moment.

    Args:
        name: a registered model.
        version: one of its versions.
        alias: any name but MLflow's reserved ``latest`` and ``v<number>``.
        tracking: where the registry is.
        gate: the rules; None takes those with which the version was registered.
        alarms: when to raise one, and whether any refuses; the defaults where None.
        data: a prepared dataset whose images both then predict. Needed for tests and alarms against a champion, and
            where version and champion were measured on different ones.
        dry_run: apply the gate and move nothing.

    Raises:
        GateRefusedError: the gate refused; the message says why, one reason a line.
        RegistryError: no such model or version, or a reserved alias.
        UserError: the registry cannot be reached.
    """
    if not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise RegistryError(
            f"alias {alias!r}: expected letters, digits, '_' and '-', and neither latest nor v<number>, "
            "which MLflow keeps for itself"
        )
    dataset = None if data is None else PreparedDataset.open(data)
    client = open_client(tracking.uri)
    with store_lock(tracking.uri, f"model {name}"), as_user_error(tracking.uri):
        candidate = version_of(client, name, version)
        champion = champion_of(client, name)
        verdict = _judge(client, candidate, champion, gate=gate, config=alarms or AlarmConfig(), dataset=dataset)
        if not verdict.passed:
            reasons = [f"  {reason}" for reason in verdict.refusals]
            raise GateRefusedError("\n".join([f"the gate refused {name} version {version} as {alias}:", *reasons]))
        previous = aliases_of(client, name).get(alias)
        move = not dry_run and previous != candidate.version
        if move:
            _move(client, name, alias, action="promote", version=candidate.version, previous=previous)
    return PromotionResult(name, alias, candidate.version, previous, move, verdict.remarks)


def rollback(name: str, *, tracking: Tracking, alias: str = CHAMPION) -> PromotionResult:
    """Point ``alias`` back at the version that had it before; again, at the one before that.

    The gate is not asked: a rollback is for when the present version does harm.

    Raises:
        RegistryError: no such model, the alias points nowhere, or there is nothing before.
        UserError: the registry cannot be reached.
    """
    client = open_client(tracking.uri)
    with store_lock(tracking.uri, f"model {name}"), as_user_error(tracking.uri):
        current = aliases_of(client, name).get(alias)
        if current is None:
            raise RegistryError(
                f"{name} has no {alias}, so there is nothing to roll back. `raregrade promote` sets one."
            )
        existing = {v.version for v in versions_of(client, name)}
        before = [v for v in versions_before(_history(client, name), alias, current) if v in existing]
        if not before:
            raise RegistryError(
                f"no version was {alias} of {name} before version {current}. "
                "Promote another one with `raregrade promote`."
            )
        _move(client, name, alias, action="rollback", version=before[0], previous=current)
    return PromotionResult(name, alias, before[0], current, True, ())


def _judge(
    client: Any,
    candidate: RegisteredVersion,
    champion: RegisteredVersion | None,
    *,
    gate: Sequence[GateRule] | None,
    config: AlarmConfig,
    dataset: PreparedDataset | None,
) -> GateResult:
    """The verdict on ``dataset``; without one, on what was recorded when the versions were registered."""
    who = f"version {candidate.version}"
    if champion is not None and champion.version == candidate.version:
        return GateResult(remarks=(f"{who} is the champion already",))
    rules = _recorded_gate(candidate) if gate is None else gate
    recorded = _recorded_alarms(candidate)

    def judged(metrics: Mapping[str, float], reference: Reference | None, alarms: Sequence[Alarm]) -> Judged:
        return Judged.by(rules, metrics, reference, model=who, alarms=alarms, config=config)

    if dataset is None:
        own = candidate.metrics
        if champion is None:
            return judged(own, _recorded_baseline(candidate), recorded).verdict
        theirs = recorded_metrics(champion, candidate.tags.get(DATASET_TAG, ""))
        reference = Reference(as_champion(champion), theirs, own, untested=NO_DATASET)
        return judged(own, reference, recorded).remarking(NOT_WATCHED).verdict
    mine = measure_version(client, candidate, dataset, who)
    if champion is None:
        found = (*alarms_about(mine, config), *recorded)
        return judged(mine.metrics, _recorded_baseline(candidate), found).verdict
    other = measure_version(client, champion, dataset, as_champion(champion))
    found = (*alarms_about(mine, config, other), *recorded)
    return judged(mine.metrics, held_against(mine, other), found).verdict


def _recorded_gate(version: RegisteredVersion) -> list[GateRule]:
    return [GateRule.model_validate(rule) for rule in version.record.get("rules", [])]


def _recorded_baseline(version: RegisteredVersion) -> Reference | None:
    baseline = version.record.get("baseline")
    return None if baseline is None else Reference.from_json(baseline)


def _recorded_alarms(version: RegisteredVersion) -> list[Alarm]:
    return [Alarm.from_json(alarm) for alarm in version.record.get("alarms", [])]


def _history(client: Any, name: str) -> list[Move]:
    return read_history(registered_model(client, name).tags.get(HISTORY_TAG))


def _move(
    client: Any, name: str, alias: str, *, action: Literal["promote", "rollback"], version: str, previous: str | None
) -> None:
    """Move first: ``versions_before`` sees through a move without its entry, not through an entry without its move."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    move = Move(alias, action, version, previous, now, _user())
    history = _history(client, name)
    client.set_registered_model_alias(name, alias, version)
    client.set_registered_model_tag(name, HISTORY_TAG, write_history([*history, move]))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"
