"""What each --help prints at 80 columns, and that its examples are command lines that parse."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from raregrade.cli.app import app

ROOT = typer.main.get_command(app)


def walk(command: Any, name: str) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    return [(name, command), *(found for key, sub in below.items() for found in walk(sub, f"{name} {key}"))]


COMMANDS = dict(walk(ROOT, "raregrade"))


def help_of(name: str) -> str:
    command = COMMANDS[name]
    with command.make_context(name, [], resilient_parsing=True, terminal_width=80) as context:
        return str(command.get_help(context))


def examples_of(name: str) -> list[list[str]]:
    """The command lines of the example, as arguments to ``raregrade``."""
    text = help_of(name).split("Example:\n")[1].replace("\\\n", " ")
    return [re.split(r" [>|] ", line)[0].split(maxsplit=1)[1:] for line in text.splitlines() if line.strip()]


def parse(command: Any, arguments: list[str], name: str) -> str:
    """The name of the command that takes ``arguments``. Raises a usage error where none does."""
    context = command.make_context(name, list(arguments))
    if not hasattr(command, "commands"):
        return name
    key, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return parse(below, rest, f"{name} {key}")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_shows_neither_types_nor_cut_sentences(name: str) -> None:
    lines = help_of(name).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert not re.search(r"<\w|Path\]|\{\w", text)
    commands = text.partition("Commands:")[2].partition("Example:")[0]
    assert "..." not in commands


@pytest.mark.parametrize("name", COMMANDS)
def test_each_example_is_a_command_line_of_its_command(name: str) -> None:
    examples = [shlex.split(line[0]) for line in examples_of(name)]
    assert examples
    taken = [parse(ROOT, arguments, "raregrade") for arguments in examples]
    assert all(found.startswith(name) for found in taken)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_one_sentence(name: str) -> None:
    summary = COMMANDS[name].help.partition("\n\n")[0]
    assert summary[0].isupper()
    assert re.fullmatch(r"[^.]+(\.yaml[^.]*)?[.?]", summary.replace("\n", " ").strip())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    assert [parameter.name for parameter in COMMANDS[name].params if not parameter.help] == []
