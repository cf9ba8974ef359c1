"""What MLflow knows of earlier runs on a dataset: comparisons that looked at its test split, and how long training is.

Asked once a comparison; what it answers stands beside the result and is no part of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from raregrade.tracking.connection import as_user_error, connect
from raregrade.tracking.runs import STEP_TAG, Tracking

LOOK_TAG = "raregrade.look"
SPLIT_TAG = "raregrade.test_split"
_DATASET_TAG = "raregrade.dataset.content_hash"
_PAGE = 1000
_MILLISECONDS_A_MINUTE = 60_000


def look_tags(split: str, identity: str) -> Mapping[str, str]:
    """The tags of a run of step ``compare``, by which ``logged_looks`` finds it."""
    return {SPLIT_TAG: split, LOOK_TAG: identity}


def logged_looks(tracking: Tracking, split: str) -> set[str]:
    """Identities of the comparisons that looked at test split ``split`` and were logged; empty without tracking.

    Raises:
        UserError: the store cannot be reached or refuses.
    """
    return {
        run.data.tags[LOOK_TAG] for run in _runs(tracking, SPLIT_TAG, split, "compare") if LOOK_TAG in run.data.tags
    }


def minutes_of_training(tracking: Tracking, content_hash: str) -> float | None:
    """Median minutes of the finished trainings on a dataset; None where none was logged.

    Raises:
        UserError: the store cannot be reached or refuses.
    """
    ended = [
        run.info.end_time - run.info.start_time
        for run in _runs(tracking, _DATASET_TAG, content_hash, "train")
        if run.info.status == "FINISHED" and run.info.end_time
    ]
    return statistics.median(ended) / _MILLISECONDS_A_MINUTE if ended else None


def _runs(tracking: Tracking, tag: str, value: str, step: str) -> Iterator[Any]:
    """Runs of ``step`` in the experiment whose ``tag`` is ``value``."""
    if not tracking.enabled:
        return
    connection = connect(tracking.uri, tracking.experiment)
    wanted = f"tags.`{tag}` = '{value}' and tags.`{STEP_TAG}` = '{step}'"
    token = None
    with as_user_error(tracking.uri):
        while True:
            found = connection.client.search_runs(
                [connection.experiment_id], wanted, max_results=_PAGE, page_token=token
            )
            yield from found
            token = found.token
            if not token:
                return
