"""Commands around a project's folder: upgrade, ui."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from raregrade import __version__
from raregrade.cli.options import PARAMS, ParamsOption, ParamsOptions
from raregrade.errors import UserError


def upgrade(
    *,
    rerun: Annotated[
        str | None,
        typer.Option(
            "--rerun",
            metavar="STEPS",
            help="The steps to run again, such as train,evaluate, or none; by default those whose numbers changed.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    params: ParamsOption = PARAMS,
) -> None:
    """Take params.yaml to this version, and say what changed.

    Steps whose numbers changed are marked: `dvc repro` runs them again, with all that depends on them.

    Example:
        raregrade upgrade --rerun train,evaluate
    """
    from raregrade.config import load_params
    from raregrade.project.upgrade import changed_steps, is_newer, mark, parse_steps, releases_between

    before = load_params(params).raregrade.version
    if is_newer(before, __version__):
        raise UserError(
            f"{params} was made for raregrade {before}, and this is {__version__}. Install {before} or a newer version."
        )
    releases = releases_between(before, __version__)
    for release in releases:
        print(f"{release.version}\n\n{release.text}\n")
    if rerun is None and not releases:
        print(f"{params} is for raregrade {__version__} already. --rerun STEPS marks steps to run again.")
        return
    marked = changed_steps(releases) if rerun is None else parse_steps(rerun)
    if rerun is None and marked and not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{', '.join(marked)}: numbers changed. Give --yes to run them again, or --rerun STEPS.")
        if not typer.confirm(f"Run {', '.join(marked)} again, and what depends on them?", default=True):
            marked = []
    mark(params, __version__, marked)
    print(f"{params} is for raregrade {__version__} now.")
    print(f"To run again: {', '.join(marked)}. `dvc repro` does it." if marked else "No step has to run again.")


def ui(
    *,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="To listen on.")] = 5000,
    options: ParamsOptions,
) -> None:
    """Open runs and registry in MLflow's pages, until Ctrl-C.

    Example:
        raregrade ui --port 5001
    """
    tracking = options.read().tracking
    uri = tracking.uri
    if uri == "none":
        raise UserError("tracking.uri is none in the parameters: nothing is logged. Set it to sqlite:///mlflow.db.")
    # Without the workflow, MLflow's side bar shows traces of language models, and no registry.
    page = "/#/experiments{}?workflowType=machine_learning"
    if uri.startswith("http"):
        print(f"The runs are kept by a server: open {uri.rstrip('/')}{page.format('')} in a browser.")
        return
    from raregrade.tracking.connection import connect

    runs = f"/{connect(uri, tracking.experiment).experiment_id}/runs"
    print(f"Open http://127.0.0.1:{port}{page.format(runs)} in a browser; Ctrl-C stops the server.", flush=True)
    command = ["mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    done = subprocess.run([sys.executable, "-m", *command], env=os.environ | environment, check=False)
    if done.returncode:
        raise UserError(
            f"MLflow's server ended with status {done.returncode}. Is port {port} taken? Give another --port."
        )


COMMANDS = {"upgrade": upgrade, "ui": ui}
