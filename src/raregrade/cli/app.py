"""The tree of commands. What each does lies in the modules mounted here."""

from __future__ import annotations

from typing import Annotated

import typer

from raregrade import __version__
from raregrade.cli import datasets, experiments, models, parameters, pipeline, project, sync, tuning
from raregrade.cli.commands import add_commands, new_group

app = new_group(
    "Which loss should you train with, on your own labelled medical images?",
    """
    raregrade prepare --out data/prepared
    raregrade train --data data/prepared --loss cdw_ce --out models/cdw_ce/1
    """,
    name="raregrade",
    invoke_without_command=True,
)


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"raregrade {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for module in (project, datasets, experiments, models, parameters, tuning, sync):
    add_commands(app, module.COMMANDS)
app.add_typer(pipeline.app, name="pipeline", no_args_is_help=False)
