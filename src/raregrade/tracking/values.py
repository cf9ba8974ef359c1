"""Values in the form and within the limits that MLflow 3.17 takes: parameters, metrics, tags, datasets.

Class names become metric names here (``f1_<class>``), and a class may be called anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import posixpath
import re
import time
from collections.abc import Mapping
from typing import Any

from raregrade.tracking.lineage import DatasetIdentity

MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_DIGEST = 36
_CONTEXTS = {"train": "training", "tune": "training"}

_logger = logging.getLogger(__name__)


def safe_name(name: str) -> str:
    """``name`` in MLflow's alphabet: letters, digits, ``_ - . /`` and spaces, no path that means another one."""
    safe = re.sub(r"[^/\w.\- ]", "_", name)
    if posixpath.normpath(safe) != safe or safe.startswith(("/", "..")) or safe == ".":
        safe = safe.replace("/", "_")
        safe = f"_{safe}" if safe.startswith("..") or safe in ("", ".") else safe
    if len(safe) > MAX_NAME:
        safe = f"{safe[: MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return safe


def safe_names(names: list[str]) -> dict[str, str]:
    """``safe_name`` of each, told apart by a number where two different names would become one."""
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda n: safe_name(n) != n):  # names that need no change keep theirs
        candidate, number = safe_name(name), 2
        while candidate in taken:
            candidate, number = f"{safe_name(name)[: MAX_NAME - 4]}_{number}", number + 1
        taken.add(candidate)
        result[name] = candidate
    return result


def flatten_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names for nested mappings, JSON for lists, text for the rest, cut to MLflow's limit with a warning."""
    flat = _flatten(params, "")
    names = safe_names(list(flat))
    return {names[name]: _cut(value, MAX_PARAM, f"parameter {name}") for name, value in flat.items()}


def tag_values(tags: Mapping[str, str]) -> dict[str, str]:
    """``tags`` cut to MLflow's limit with a warning."""
    return {key: _cut(str(value), MAX_TAG, f"tag {key}") for key, value in tags.items()}


def metric_values(metrics: Mapping[str, float], step: int) -> list[tuple[str, float, int, int]]:
    """(name, value, milliseconds, step) of each finite value; a metric that is not defined is not a number to plot."""
    now = int(time.time() * 1000)
    names = safe_names(list(metrics))
    return [(names[k], float(v), now, step) for k, v in metrics.items() if math.isfinite(v)]


def dataset_input(data: DatasetIdentity, step: str) -> Any:
    """The dataset as MLflow shows it beside a run: name, digest, source, number of images."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.source or "dataset",
        digest=(data.dvc_md5 or data.content_hash)[:MAX_DIGEST],
        source_type="raregrade",
        source=json.dumps({"source": data.source, "content_hash": data.content_hash, "dvc_md5": data.dvc_md5}),
        profile=json.dumps({"num_rows": data.num_images}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", _CONTEXTS.get(step, step))])


def _flatten(params: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _cut(value: str, limit: int, what: str) -> str:
    if len(value) <= limit:
        return value
    _logger.warning("%s has %d characters; MLflow keeps the first %d", what, len(value), limit - 1)
    return value[: limit - 1] + "…"
