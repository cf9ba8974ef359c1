"""From the version that params.yaml was made for to the installed one: what changed, and which steps to run again.

The changelog says under ``### Results`` of each version which steps give other numbers, a line for each such as
``- train, evaluate: …``. A step is marked by its version under ``raregrade.steps``, on which its DVC stage depends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raregrade.atomic import write_text
from raregrade.config import MadeFor, StepVersions, load_params
from raregrade.errors import UserError
from raregrade.project.shipped import read_shipped

STEPS = tuple(StepVersions.model_fields)
_HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\].*$", re.MULTILINE)
_RESULTS = re.compile(r"^### Results\n(.*?)(?=^###? |\Z)", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^raregrade:.*\n(?:[ \t]+.*\n|[ \t]*\n(?=[ \t]))*", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """A version in the changelog: its ``text``, and the steps whose numbers it changes."""

    version: str
    text: str
    changed: tuple[str, ...]


def releases_between(old: str, new: str, changelog: str | None = None) -> list[Release]:
    """The versions after ``old`` up to ``new``, newest first, from ``changelog`` (by default the shipped one)."""
    parts = _HEADING.split(read_shipped("CHANGELOG.md") if changelog is None else changelog)[1:]
    found = [Release(v, text.strip(), _changed(text)) for v, text in zip(parts[::2], parts[1::2], strict=True)]
    return [release for release in found if _numbers(old) < _numbers(release.version) <= _numbers(new)]


def changed_steps(releases: Iterable[Release]) -> list[str]:
    """The steps whose numbers change over ``releases``, in the order in which they run."""
    changed = {step for release in releases for step in release.changed}
    return [step for step in STEPS if step in changed]


def is_newer(version: str, other: str) -> bool:
    return _numbers(version) > _numbers(other)


def parse_steps(text: str) -> list[str]:
    """``train,evaluate`` as a list; ``none`` is an empty one. Raises UserError for what is no step."""
    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise UserError(f"--rerun {text}: {unknown[0]!r} is no step that can be marked; allowed: {', '.join(STEPS)}")
    return names


def mark(path: Path, version: str, rerun: Sequence[str]) -> MadeFor:
    """Write into ``path`` that it is for ``version``, and mark the steps ``rerun``; the rest of the file stays.

    Raises:
        ConfigError: ``path`` is not a valid parameters file.
    """
    before = load_params(path).raregrade
    steps = before.steps.model_dump()
    steps |= {step: _another(steps[step], version) for step in rerun}
    after = MadeFor(version=version, steps=StepVersions(**steps))
    text = path.read_text(encoding="utf-8")
    section = section_text(after)
    if _SECTION.search(text):
        write_text(path, _SECTION.sub(lambda _: section, text, count=1))
    else:
        write_text(path, f"{text.rstrip()}\n\n{section}")
    return after


def section_text(made_for: MadeFor) -> str:
    """The section ``raregrade`` of params.yaml."""
    steps = ", ".join(f"{step}: {version}" for step, version in made_for.steps.model_dump().items())
    return (
        "raregrade: # set by `raregrade upgrade`: the version this file is for, and that of each step's results\n"
        f"  version: {made_for.version}\n"
        f"  steps: {{{steps}}}\n"
    )


def _another(old: str, version: str) -> str:
    """``version``, or with a count behind it where ``old`` is the same, so that DVC sees a change."""
    if old.partition("+")[0] != version:
        return version
    return f"{version}+{int(old.partition('+')[2] or 0) + 1}"


def _changed(text: str) -> tuple[str, ...]:
    results = _RESULTS.search(text)
    named = re.findall(r"^- ([a-z, ]+):", results[1] if results else "", re.MULTILINE)
    steps = [name.strip() for names in named for name in names.split(",")]
    return tuple(step for step in steps if step in STEPS)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("+")[0].split("."))
