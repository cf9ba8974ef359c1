"""The sections ``gate``, ``alarms`` and ``register`` of params.yaml: what may enter the registry, and as what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.schema import ConfigModel


class GateRule(ConfigModel):
    """One condition of the gate.

    ``threshold`` is an absolute floor (a ceiling where lower is better) for a validation metric of the candidate,
    ``min_absolute_change`` the least improvement of it over the champion, or over the comparison's baseline while
    there is no champion. Both are about numbers as they are. ``superior`` and ``non_inferior`` are tests, on the same
    images for both: that the candidate is better, or that it is not worse by the margin ``non_inferior`` or more. They
    take ``test_*`` metrics as well, and those are the ones to take: validation images have chosen the epoch.
    """

    metric: str
    threshold: float | None = None
    min_absolute_change: float | None = Field(None, ge=-1, le=1)
    superior: Literal[True] | None = None
    non_inferior: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _asks_for_something(self) -> GateRule:
        if not re.fullmatch(r"(val|test)_.+", self.metric):
            raise ValueError(f"metric: {self.metric!r} is not a metric of a split; give val_… or test_…")
        values = (self.threshold, self.min_absolute_change)
        tests = (self.superior, self.non_inferior)
        if values == (None, None) and tests == (None, None):
            raise ValueError("give threshold, min_absolute_change, superior or non_inferior")
        if values != (None, None) and self.metric.startswith("test_"):
            raise ValueError(
                f"metric: {self.metric!r}: threshold and min_absolute_change read val_* metrics only; the test split "
                "is for superior and non_inferior"
            )
        return self

    @property
    def greater_is_better(self) -> bool:
        return self.metric.partition("_")[2] not in LOWER_IS_BETTER


class AlarmConfig(ConfigModel):
    """When a model is not fit to be used, whatever its average.

    Attributes:
        guard: the classes whose recall is watched; all of them where empty.
        recall_floor: alarm where the recall of a watched class is below this beyond doubt.
        recall_drop: alarm where it is below the baseline's or champion's beyond doubt, and by more than this.
        refuse: whether an alarm keeps a model out of the registry; it is shown in any case.
    """

    guard: list[str] = Field(default_factory=list)
    recall_floor: float = Field(0.2, ge=0, lt=1)
    recall_drop: float = Field(0.05, ge=0, lt=1)
    refuse: bool = True


class RegisterConfig(ConfigModel):
    """Under which name, and when.

    ``clearly_better``: the loss that validation chose where its lead stood the test, else the baseline. ``best``: the
    loss that validation chose.
    """

    name: str = Field("raregrade-demo", max_length=256)  # MLflow's column
    when: Literal["clearly_better", "best"] = "clearly_better"

    @field_validator("name")
    @classmethod
    def _can_be_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*", value):
            raise ValueError(
                f"{value!r} cannot name a model: give letters, digits, '_', '-' and '.', a letter, digit or '_' first"
            )
        return value


def gate_problems(
    gate: Sequence[GateRule], alarms: AlarmConfig, classes: Sequence[str], metrics: Sequence[str]
) -> list[str]:
    """What of ``gate`` and ``alarms`` contradicts the labels, one message each.

    Args:
        gate, alarms: the sections.
        classes: names of the classes.
        metrics: those that are defined for the task.
    """
    allowed = [*metrics, *(f"f1_{c}" for c in classes)]
    problems = []
    for i, rule in enumerate(gate):
        split, _, base = rule.metric.partition("_")
        if base not in allowed:
            names = ", ".join(f"{split}_{m}" for m in allowed)
            problems.append(f"gate.{i}.metric: {rule.metric!r} is not computed for these labels; allowed: {names}")
    unknown = [name for name in alarms.guard if name not in classes]
    if unknown:
        problems.append(f"alarms.guard: {unknown[0]!r} is not a class; the classes are {', '.join(classes)}")
    return problems
