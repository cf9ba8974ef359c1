"""Tuned parameters: what ``raregrade tune`` leaves in best.yaml, and a training section with them in place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raregrade.config.sections import TrainSection
from raregrade.config.training import check_training
from raregrade.config.tuning import TRAIN_PREFIX, TUNED_SUFFIX
from raregrade.errors import ConfigError
from raregrade.schema import Scalar

BEST_FILE = "best.yaml"
# The baseline as it was tuned beside the loss, in the same form.
BASELINE_FILE = "baseline.yaml"
BEST_SCHEMA = 2
_KEYS = {"kind", "params", "chosen", "better", "study"}


def with_values(section: TrainSection, values: Mapping[str, Scalar]) -> TrainSection:
    """``section`` with parameters replaced: those of the loss by name, those of the training after ``train.``.

    Raises:
        ConfigError: an unknown parameter or a value out of range.
    """
    loss = {name: value for name, value in values.items() if not name.startswith(TRAIN_PREFIX)}
    train = {name.removeprefix(TRAIN_PREFIX): v for name, v in values.items() if name.startswith(TRAIN_PREFIX)}
    try:
        params = type(section.loss.params).model_validate({**section.loss.params.model_dump(), **loss})
        config = type(section.train).model_validate({**section.train.model_dump(), **train})
    except ValidationError as err:
        lines = [
            f"  {'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" if e["loc"] else f"  {e['ctx']['error']}"
            for e in err.errors()
        ]
        raise ConfigError("\n".join([f"parameters of {section.loss.name} are wrong:", *lines])) from err
    return TrainSection(train=config, loss=section.loss.model_copy(update={"params": params}))


def read_best(path: Path) -> dict[str, Any]:
    """The content of a best.yaml. Raises ConfigError: no such file, not YAML, or not written by ``raregrade tune``."""
    try:
        best = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ConfigError(f"cannot read {path}: {err}. `raregrade tune` writes it.") from err
    if not isinstance(best, dict) or best.get("schema") != BEST_SCHEMA or not best.keys() >= _KEYS:
        raise ConfigError(
            f"{path} holds no tuned parameters of this version. Run `raregrade tune` again: what its study has trained "
            "is kept."
        )
    return best


def tuned_facts(path: Path) -> dict[str, Any]:
    """What a model's card says of the study that chose its parameters.

    ``chosen`` is ``default`` where the study kept the settings of params.yaml, ``better`` whether what it chose is
    shown to be better than these and than the tuned baseline, ``seen`` the split that the study chose on.
    """
    best = read_best(path)
    return {
        "study": best["study"]["name"],
        "chosen": best["chosen"],
        "better": best["better"],
        "trials": best["study"]["trials"],
        "seen": "val",
    }


def tuned_section(section: TrainSection, path: Path) -> TrainSection:
    """``section`` with the parameters that a study chose, under the name ``<loss>-tuned``.

    Raises:
        ConfigError: what ``read_best`` or ``check_training`` refuses, or parameters of another loss.
    """
    best = read_best(path)
    if best["kind"] != section.loss.kind:
        raise ConfigError(f"{path} holds parameters of {best['kind']}, and the loss to train is {section.loss.kind}")
    train = {TRAIN_PREFIX + name: value for name, value in (best.get("train") or {}).items()}
    found = with_values(section, {**best["params"], **train})
    check_training(found.train, found.loss)
    name = section.loss.name + TUNED_SUFFIX
    return found.model_copy(update={"loss": found.loss.model_copy(update={"name": name})})
