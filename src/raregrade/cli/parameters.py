"""Commands about parameters: params shows what they come to, presets what ships with raregrade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raregrade.cli.completion import complete_preset
from raregrade.cli.options import ParamsOptions
from raregrade.cli.printing import print_table


def show_params(
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write to this file, which may be --params itself."),
    ] = None,
    options: ParamsOptions,
) -> None:
    """Print the parameters with presets and --set laid over them.

    Written to params.yaml, they are what `dvc repro` runs. Its comments stay.

    Example:
        raregrade params --preset cdw_ce_resnet18 --out params.yaml
    """
    options.read()  # refuses what is wrong
    from raregrade.atomic import write_text
    from raregrade.config import merged_text

    text = merged_text(options.params, options.set_ or (), options.preset or ())
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def presets(
    *,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=complete_preset, help="Print this preset's file."),
    ] = None,
) -> None:
    """List the presets that ship with raregrade, or print one.

    Those of papers go over your parameters: `--preset NAME`. Those of phantoms are whole parameters files.

    Example:
        raregrade presets
        raregrade presets hierarchical > params.yaml
    """
    from raregrade.config.presets import describe_preset, shipped_preset, shipped_presets

    if name is not None:
        print(shipped_preset(name).read_text(encoding="utf-8"), end="")
        return
    print_table(["preset", "what it is"], [[key, describe_preset(path)] for key, path in shipped_presets().items()])


COMMANDS = {"params": show_params, "presets": presets}
