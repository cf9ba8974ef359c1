"""The command that shows what the parameters come to: params."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raregrade.cli.options import ParamsOptions


def show_params(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write, which may be --params itself; else print.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Print the parameters with presets and --set laid over them.

    Written to params.yaml they are what `dvc repro` runs. Comments are not kept.
    """
    options.read()  # refuses what is wrong
    from raregrade.atomic import write_text
    from raregrade.config import dump_params, merged_params

    text = dump_params(merged_params(options.params, options.set_ or (), options.preset or ()))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


COMMANDS = {"params": show_params}
