"""Step ``register``: what a comparison recommends through the gate into the model registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.atomic import write_text
from raregrade.config import RegisterSection
from raregrade.data.manifest import PreparedDataset
from raregrade.tracking import Tracking


def register(
    section: RegisterSection,
    comparison: Path,
    models: Sequence[Path],
    data: Path,
    out: Path,
    *,
    tracking: Tracking,
) -> dict[str, Any]:
    """Apply the gate to what ``comparison`` recommends and register it if it passes.

    A refusal is a result: it is written to ``out`` like a registration, with its reasons.

    Args:
        section: gate, alarms, registered name, and when the winner is taken instead of the baseline.
        comparison: the folder that ``compare`` wrote.
        models: the model folders of all candidates.
        data: the prepared dataset they were trained on.
        out: the file ``registered.json``.
        tracking: the MLflow server whose registry is used.
    """
    from raregrade.registry.register import register_winner

    dataset = PreparedDataset.open(data)
    result = register_winner(
        comparison=comparison,
        models=models,
        data=data,
        gate=section.gate,
        alarms=section.alarms,
        when=section.register_.when,
        name=section.register_.name,
        tracking=tracking.for_dataset(dataset.content_hash),
    )
    value = result.to_json()
    write_text(out, json.dumps(value, indent=2, sort_keys=True) + "\n")
    return value
