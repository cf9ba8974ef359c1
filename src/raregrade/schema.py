"""What params.yaml and the losses are described with: checked objects, and ranges that a study can search."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """Frozen, strict (no silent conversion of "3" to 3), and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Scalar = bool | int | float | str


class FloatRange(ConfigModel):
    """Numbers from ``low`` to ``high``; with ``log`` each factor is as likely as the next."""

    low: float
    high: float
    log: bool = False


class IntRange(ConfigModel):
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int
    log: bool = False


class Choice(ConfigModel):
    """One of ``choices``, between which there is no order."""

    choices: tuple[Scalar, ...]


Space = FloatRange | IntRange | Choice


def contains(space: Space, value: Scalar) -> bool:
    """Whether ``value`` can come out of ``space``."""
    if isinstance(space, Choice):
        return value in space.choices
    return isinstance(value, int | float) and space.low <= value <= space.high
