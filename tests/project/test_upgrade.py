"""From one version to another: what the changelog says of results, and what is marked in params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade import __version__
from raregrade.config import load_params
from raregrade.errors import UserError
from raregrade.project.upgrade import changed_steps, mark, parse_steps, releases_between, section_text

CHANGELOG = """# Changelog

## [Unreleased]

### Results

- phantom: not released

## [0.10.0] - 2027-01-02

### Results

- evaluate, train: the stem is another one
- compare: intervals

### Added

- prepare: this is no line about results

## [0.2.0]

### Results

No numbers change.

## [0.1.0]

### Results

- prepare: first
"""
PARAMS = """# mine
data: {source: phantom, path: raw, task: ordinal, classes: [a, b]} # kept
losses:
  ce: {}
compare: {losses: [ce], seeds: [1], baseline: ce}
"""


def test_the_versions_after_the_old_one_up_to_the_new_one_count() -> None:
    found = releases_between("0.1.0", "0.10.0", CHANGELOG)
    assert [release.version for release in found] == ["0.10.0", "0.2.0"]
    assert "the stem is another one" in found[0].text
    assert releases_between("0.2.0", "0.2.0", CHANGELOG) == []
    assert releases_between("0.10.0", "0.2.0", CHANGELOG) == []


def test_steps_whose_numbers_change_are_named_in_the_order_in_which_they_run() -> None:
    assert changed_steps(releases_between("0.1.0", "0.10.0", CHANGELOG)) == ["train", "evaluate", "compare"]
    assert changed_steps(releases_between("0.1.0", "0.2.0", CHANGELOG)) == []


def test_the_shipped_changelog_speaks_of_this_version() -> None:
    assert [release.version for release in releases_between("0.0.0", __version__)][:1] == [__version__]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS, encoding="utf-8")
    return path


def test_marking_leaves_everything_else_in_the_file_as_it_is(params: Path) -> None:
    mark(params, "0.2.0", [])
    mark(params, "0.3.0", ["train"])
    text = params.read_text(encoding="utf-8")
    made_for = load_params(params).raregrade
    assert text == f"{PARAMS}\n{section_text(made_for)}"
    assert made_for.version == made_for.steps.train == "0.3.0"
    assert made_for.steps.prepare == __version__


def test_the_section_is_replaced_where_it_stands(params: Path) -> None:
    section = "raregrade:\n  version: 0.1.0\n\n  steps: {train: 0.1.0}\n"
    params.write_text(section + "# after\n" + PARAMS, encoding="utf-8")
    mark(params, "0.2.0", [])
    text = params.read_text(encoding="utf-8")
    assert text.endswith("# after\n" + PARAMS)
    assert text.count("raregrade:") == 1


def test_a_step_marked_twice_for_one_version_changes_each_time(params: Path) -> None:
    seen = {mark(params, "0.2.0", ["train"]).steps.train for _ in range(3)}
    assert seen == {"0.2.0", "0.2.0+1", "0.2.0+2"}


def test_what_is_no_step_is_refused() -> None:
    assert parse_steps("train, evaluate") == ["train", "evaluate"]
    assert parse_steps("none") == []
    with pytest.raises(UserError, match=r"'register' is no step that can be marked; allowed: phantom, prepare"):
        parse_steps("register")
