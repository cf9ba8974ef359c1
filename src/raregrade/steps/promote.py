"""Step ``promote``: a registered version to ``champion``, if the gate lets it against the champion of that moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.atomic import write_text
from raregrade.config import RegisterSection
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, GateRefusedError
from raregrade.tracking import Tracking, start_step

PROMOTED = "promoted.json"


def promote(section: RegisterSection, registered: Path, data: Path, out: Path, *, tracking: Tracking) -> dict[str, Any]:
    """Point ``champion`` at the version that ``registered`` names.

    That nothing was registered, and that the gate refuses, are results: they are written to ``out`` with the reasons.

    Args:
        section: the gate's rules, and when to raise an alarm.
        registered: ``registered.json`` of step ``register``.
        data: the prepared dataset on which version and champion are held against each other.
        out: the file ``promoted.json``.
        tracking: the MLflow server whose registry is used.

    Returns:
        The content of ``out``: ``promoted`` (``champion`` points to ``version`` now), ``moved`` (it did not before),
        ``name``, ``version``, ``previous``, ``reasons`` (why not; empty where promoted), ``remarks`` (what held).

    Raises:
        DataError: ``registered`` cannot be read.
        RegistryError: the version is no longer in the registry.
        UserError: the registry cannot be reached.
    """
    outcome = _read(registered)
    name, version = str(outcome["name"]), outcome.get("version")
    tracking = tracking.for_dataset(PreparedDataset.open(data).content_hash)
    with start_step(tracking, "promote", name=f"promote {name}") as run:
        if not outcome["registered"] or version is None:
            reasons = ["nothing was registered, so there is nothing to promote", *outcome["reasons"]]
            value = _result(name, None, None, reasons=reasons)
        else:
            value = _promote(section, name, str(version), data, tracking)
        write_text(out, json.dumps(value, indent=2, sort_keys=True) + "\n")
        run.set_tags({"raregrade.promoted": str(value["promoted"]).lower()})
        run.describe_pipeline(_note(value))
    return value


def _promote(section: RegisterSection, name: str, version: str, data: Path, tracking: Tracking) -> dict[str, Any]:
    from raregrade.registry import promote as move_alias

    try:
        moved = move_alias(name, version, tracking=tracking, gate=section.gate, alarms=section.alarms, data=data)
    except GateRefusedError as err:
        reasons = [line.strip() for line in str(err).splitlines()[1:]] or [str(err)]
        return _result(name, version, None, reasons=reasons)
    promoted = _result(name, version, moved.previous)
    return {**promoted, "promoted": True, "moved": moved.moved, "remarks": list(moved.remarks)}


def _result(name: str, version: str | None, previous: str | None, *, reasons: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "previous": previous,
        "promoted": False,
        "moved": False,
        "reasons": list(reasons),
        "remarks": [],
    }


def _note(value: dict[str, Any]) -> str:
    if value["moved"]:
        before = f"in place of version {value['previous']}" if value["previous"] else "the first"
        return f"Version {value['version']} of {value['name']} is champion now, {before}."
    if value["promoted"]:
        return f"Version {value['version']} of {value['name']} stays champion."
    return f"The champion of {value['name']} stays what it was: {value['reasons'][0]}."


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {key: value[key] for key in ("registered", "name", "version", "reasons")}
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise DataError(f"{path} is not what `raregrade register` writes: {err!r}. Register again.") from err
