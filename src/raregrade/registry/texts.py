"""What stands in the registry beside a version: its description for people, and tags for the gate of another day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from raregrade.config import GateRule
from raregrade.evaluation.naming import metric_name
from raregrade.registry.candidate import Candidate
from raregrade.registry.catalog import DATASET_TAG, DECISION_TAG, REASONS_TAG, RECORD_TAG, WEIGHTS_TAG
from raregrade.registry.judged import Judged
from raregrade.tracking.values import safe_names

# MLflow's column for descriptions has 5,000 characters.
_MAX_CHARACTERS = 4900


def describe(candidate: Candidate, judged: Judged) -> str:
    """The description of the version: alarms and doubt first, then what the model is and how it did."""
    selection = candidate.selection_metric.partition("_")[2]
    shown = {
        name: candidate.metrics[name] for name in (f"test_{selection}", f"val_{selection}") if name in candidate.metrics
    }
    values = [f"{metric_name(name)} {value:.4f}" for name, value in shown.items()]
    alarms = judged.sentences(candidate.loss)
    paragraphs = [
        # The comparison's advice begins with those that it knows of.
        *(f"Alarm: {alarm}." for alarm in alarms if alarm.removeprefix(f"{candidate.loss} ") not in candidate.advice),
        candidate.advice,
        f"{candidate.choice}.",
        f"{candidate.card['backbone']} trained with {candidate.loss} (seed {candidate.seed}), decided by "
        f"{candidate.decision}. {', '.join(values)}. Values of val_* are flattering: "
        "validation chose the epoch and the loss.",
        "\n".join(f"- {remark}" for remark in judged.verdict.remarks),
    ]
    text = "\n\n".join(paragraphs)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} …"


def version_tags(candidate: Candidate, gate: Sequence[GateRule], judged: Judged) -> dict[str, str]:
    """What the registry must know by itself: enough to find the data and code, and to apply the gate again."""
    known = candidate.card["dataset"]
    record = {
        "metrics": candidate.metrics,
        "rules": [rule.model_dump(mode="json", exclude_none=True) for rule in gate],
        "baseline": asdict(candidate.baseline),
        "alarms": [alarm.to_json() for alarm in judged.alarms],
    }
    names = safe_names(list(candidate.metrics))
    tags = {
        "loss": candidate.loss,
        "seed": str(candidate.seed),
        "backbone": str(candidate.card["backbone"]),
        WEIGHTS_TAG: candidate.weights_sha256,
        DECISION_TAG: json.dumps(candidate.decision.to_json()),
        DATASET_TAG: candidate.dataset_hash,
        "raregrade.dataset.dvc_md5": known.get("dvc_md5"),
        "raregrade.dataset.source": known.get("source"),
        "raregrade.git_commit": candidate.card.get("git_commit"),
        REASONS_TAG: "\n".join((candidate.choice, *judged.verdict.remarks)),
        RECORD_TAG: json.dumps(record, separators=(",", ":")),
    }
    tags |= {names[name]: f"{value:.6g}" for name, value in candidate.metrics.items()}
    return {key: str(value) for key, value in tags.items() if value}
