"""Step ``prepare``: raw images and labels to a checked, split, decoded dataset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from raregrade.config import PrepareSection
from raregrade.steps.identity import dataset_identity
from raregrade.tracking import Tracking, start_step

_logger = logging.getLogger(__name__)


def prepare(
    section: PrepareSection,
    out: Path,
    *,
    tracking: Tracking,
    store: Path | None = None,
    previous: Path | None = None,
) -> dict[str, Any]:
    """Check, split and decode the raw dataset of ``section`` into ``out``; what is odd about it is logged as warnings.

    Args:
        section: what ``config.section(params, "prepare")`` returns.
        out: the prepared dataset; appears when it is complete.
        tracking: where the run is logged.
        store: folder for the decoded images, shared between runs; it remembers the dataset, so that a later run can
            name it as ``previous``. By default the images lie in ``out``.
        previous: an earlier prepared dataset whose patients keep their split.

    Returns:
        The content of ``dataset.json``.

    Raises:
        DataError: anything wrong with the raw data, with file and row.
    """
    from raregrade.data.known import remember
    from raregrade.data.prepare import prepare_dataset

    dataset = prepare_dataset(section.data, section.seed, out, store=store, previous=previous)
    if store is not None:
        remember(dataset, store)
    for warning in dataset.info["warnings"]:
        _logger.warning("warning: %s", warning)
    # The run begins when the data are there: their hash is what finds the parent run.
    tracking = tracking.for_dataset(dataset.content_hash)
    with start_step(tracking, "prepare", name="prepare", data=dataset_identity(dataset)) as run:
        run.log_params({f"data.{k}": v for k, v in section.data.model_dump(mode="json").items()})
        run.log_params({"seed": section.seed})
        run.log_metrics({f"num_{split}": count for split, count in dataset.manifest["split"].value_counts().items()})
        run.log_artifacts(out / "dataset.json")
    return dataset.info
