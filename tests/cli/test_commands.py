"""Option objects as options of a command, and what help prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

from raregrade.cli.commands import add_commands


@dataclass(frozen=True)
class Where:
    host: Annotated[str, typer.Option("--host", help="The host.")]
    port: Annotated[int, typer.Option("--port", min=1, help="Its port.")] = 80


def send(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What to send.")],
    where: Where,
    twice: bool = False,
) -> None:
    """Send files.

    Example:
        raregrade send a.txt b.txt \\
            --host here
    """
    print([file.name for file in files], where, twice)


def called(*arguments: str) -> int:
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)
    add_commands(app, {"send": send})
    command = typer.main.get_command(app)
    try:
        with command.make_context("raregrade", ["send", *arguments]) as context:
            command.invoke(context)
    except typer.Exit as err:
        return err.exit_code
    return 0


def test_the_fields_of_an_option_object_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("a", "b", "--host", "here", "--port", "8") == 0
    assert capsys.readouterr().out == "['a', 'b'] Where(host='here', port=8) False\n"


def test_an_option_object_keeps_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("a", "--host", "here", "--twice") == 0
    assert capsys.readouterr().out == "['a'] Where(host='here', port=80) True\n"


def test_a_field_without_a_default_is_required() -> None:
    with pytest.raises(typer.BadParameter.__bases__[0]) as refused:
        called("a")
    assert refused.value.format_message() == "Missing option '--host'."  # type: ignore[attr-defined]


def test_help_names_values_by_words_and_keeps_the_lines_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("--help") == 0
    text = capsys.readouterr().out
    assert "send [OPTIONS] FILE...\n" in text
    assert "--port N" in text
    assert "--host TEXT" in text
    assert text.endswith("Example:\n    raregrade send a.txt b.txt \\\n        --host here\n")
