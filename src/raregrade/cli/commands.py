"""How commands are mounted: option objects become options, and help speaks in words and examples.

A command takes what only it needs as parameters, and what it shares with others as a dataclass whose fields are
options, such as ``ParamsOptions``. Its docstring is its help; the lines below ``Example:`` are printed as they are.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from textwrap import dedent, indent
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

_EXAMPLE = "Example:\n"
# What typer shows of a value without a metavar, and what people call it.
_WORDS = {"int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER", "str": "TEXT", "path": "PATH"}


def add_commands(app: typer.Typer, commands: Mapping[str, Callable[..., None]]) -> None:
    """Mount ``commands`` on ``app`` by their names."""
    for name, command in commands.items():
        text, _, lines = inspect.cleandoc(command.__doc__ or "").partition(_EXAMPLE)
        app.command(name, cls=_Command, help=text, epilog=example(lines) if lines else None)(expand_options(command))


def new_group(summary: str, lines: str, **settings: Any) -> typer.Typer:
    """A group of commands, which alone prints its help: a summary and an example of one or more ``lines``."""
    context = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(help=summary, epilog=example(lines), rich_markup_mode=None, context_settings=context, **settings)


def example(lines: str) -> str:
    """``lines`` as the end of a help text, not wrapped."""
    return f"\b\n{_EXAMPLE}{indent(dedent(lines).strip(), '  ')}"


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer can read it: each field of a parameter that is a dataclass becomes a parameter."""
    flat: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if not is_dataclass(group):
            flat.append(parameter)
            continue
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            annotation = hints[field.name]
            flat.append(
                inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )

    @wraps(command)
    def call(**given: Any) -> None:
        objects = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **objects)

    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call


def _in_words(left: str) -> str:
    """The left column of a help line, ``--data <path>`` as ``--data PATH``; an argument goes by its name alone."""
    if not left.startswith("-"):
        return re.sub(r" <.*>$", "", left)

    def word(match: re.Match[str]) -> str:
        kind = re.sub(r"^list\[(.*)\]$", r"\1", match[1]).lower()
        return _WORDS.get(kind, match[1])

    return re.sub(r"<(.*?)>", word, left)


class _Command(TyperCommand):
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            found = [p.get_help_record(ctx) for p in self.get_params(ctx) if p.param_type_name == kind]
            records = [(_in_words(record[0]), record[1]) for record in found if record is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
