"""Step ``evaluate_champion``: the champion's report on a dataset, to stand beside that of its successor."""

from __future__ import annotations

from pathlib import Path

from raregrade.config import EvaluateSection
from raregrade.steps.champion import has_champion
from raregrade.steps.evaluate import evaluate
from raregrade.tracking import Tracking


def evaluate_champion(
    section: EvaluateSection, champion: Path, data: Path, out: Path, *, tracking: Tracking
) -> dict[str, float]:
    """Judge the champion on ``data`` as step ``evaluate`` does; where there is none, leave ``out`` empty.

    Args:
        section: of step ``evaluate``.
        champion: the folder that step ``champion`` wrote.
        data: the prepared dataset of its successor. Its test patients are new to the champion: known ones kept
            their split.
        out: the report folder.
        tracking: where the run is logged.

    Returns:
        The metrics; empty without a champion.

    Raises:
        ModelError: the champion does not fit the dataset.
    """
    if not has_champion(champion):
        out.mkdir(parents=True, exist_ok=True)
        return {}
    return evaluate(section, champion, data, out, tracking=tracking)
