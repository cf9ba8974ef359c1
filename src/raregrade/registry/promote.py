"""Moving the aliases of registered versions: promote through the gate, and rollback.

Two moves at once are kept apart by a lock on this machine. How versions come into the registry is the
business of ``register``.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from raregrade.config import GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import GateRefusedError, RegistryError
from raregrade.registry.catalog import (
    CHAMPION,
    DATASET_TAG,
    RegisteredVersion,
    aliases_of,
    registered_model,
    version_of,
    versions_of,
)
from raregrade.registry.champion import champion_of, metrics_on
from raregrade.registry.gate import GateResult, Reference, evaluate_gate
from raregrade.registry.history import HISTORY_TAG, Move, read_history, versions_before, write_history
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
        reasons: what the gate found.
    """

    name: str
    alias: str
    version: str
    previous: str | None
    moved: bool
    reasons: tuple[str, ...]


def promote(
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    tracking: Tracking,
    gate: Sequence[GateRule] | None = None,
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
        data: a prepared dataset; needed where version and champion were measured on different ones, both
            are then measured on it.
        dry_run: apply the gate and move nothing.

    Raises:
        GateRefusedError: the gate refused; the message says why.
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
        verdict = _judge(client, candidate, champion, gate, dataset)
        if not verdict.passed:
            raise GateRefusedError(
                "\n".join(
                    [f"the gate refused {name} version {version} as {alias}:", *(f"  {r}" for r in verdict.reasons)]
                )
            )
        previous = aliases_of(client, name).get(alias)
        move = not dry_run and previous != candidate.version
        if move:
            _move(client, name, alias, action="promote", version=candidate.version, previous=previous)
    return PromotionResult(name, alias, candidate.version, previous, move, verdict.reasons)


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
    gate: Sequence[GateRule] | None,
    dataset: PreparedDataset | None,
) -> GateResult:
    if champion is not None and champion.version == candidate.version:
        return GateResult(True, (f"version {candidate.version} is the champion already",))
    rules = _recorded_gate(candidate) if gate is None else gate
    # All versions are judged on one dataset: the one given, else the one that the candidate was registered on.
    dataset_hash = candidate.tags.get(DATASET_TAG, "") if dataset is None else dataset.content_hash
    metrics = metrics_on(client, candidate, dataset_hash, dataset)
    if champion is None:
        return evaluate_gate(rules, metrics, _recorded_baseline(candidate))
    theirs = metrics_on(client, champion, dataset_hash, dataset)
    return evaluate_gate(rules, metrics, Reference(f"champion (version {champion.version})", theirs, metrics))


def _recorded_gate(version: RegisteredVersion) -> list[GateRule]:
    return [GateRule.model_validate(rule) for rule in version.record.get("rules", [])]


def _recorded_baseline(version: RegisteredVersion) -> Reference | None:
    baseline = version.record.get("baseline")
    return None if baseline is None else Reference(**baseline)


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
