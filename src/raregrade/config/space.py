"""What can be searched: a range of numbers or a list of choices. Knows neither losses nor Optuna."""

from __future__ import annotations

from raregrade.config.base import ConfigModel

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
