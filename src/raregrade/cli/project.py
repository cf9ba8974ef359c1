"""Commands around a project's folder: init, upgrade, relocate, ui."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from raregrade import __version__
from raregrade.atomic import write_text
from raregrade.cli.options import PARAMS, ParamsOption, ParamsOptions
from raregrade.cli.printing import print_table
from raregrade.errors import UserError


def init(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The project's folder; by default this one.")
    ] = Path(),
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="A table of labels beside its images, or a MedMNIST file (.npz)."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="FOLDER", help="Images with one table in their folder, or in one folder per class."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take what was guessed, and do not ask.")] = False,
) -> None:
    """Start a project of your own, from your labels.

    Nothing that exists is overwritten. Without --table or --images the project draws synthetic images.

    Example:
        raregrade init severity --table data/raw/mine/labels.csv
    """
    from raregrade.project.scaffold import check_free, project_files, start_repositories, write_project
    from raregrade.project.start import guess_of, problem_with

    folder = folder.resolve()
    guess, new_table = guess_of(folder, table, images)
    files = project_files(folder, guess)
    check_free(folder, files)
    problem = problem_with(files["params.yaml"], folder, has_table=new_table is None)
    print_table(["data", "guessed", "why"], [[k, str(v), guess.reasons.get(k, "")] for k, v in guess.data.items()])
    for remark in [*guess.remarks, *([f"`prepare` would refuse: {problem}"] if problem else [])]:
        print(f"note: {remark}")
    if sys.stdin.isatty() and not yes and not typer.confirm(f"Write the project {folder}?", default=True):
        raise UserError("nothing was written. Name the columns in a params.yaml of your own, or run init again.")
    folder.mkdir(parents=True, exist_ok=True)
    if new_table is not None:
        write_text(*new_table)
        print(f"wrote {new_table[0]}")
    print(f"wrote {', '.join(write_project(folder, files))} in {folder}")
    left = start_repositories(folder)
    here = [] if folder == Path.cwd() else [f"cd {shlex.quote(os.path.relpath(folder))}"]
    steps = [*here, *left, "dvc repro", "raregrade show comparison"]
    print("Look through params.yaml, then:\n" + "\n".join(f"  {step}" for step in steps))


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


def relocate(*, options: ParamsOptions) -> None:
    """Mend the paths in the MLflow database of a moved project.

    MLflow stores the files of runs and models by absolute paths.

    Example:
        raregrade relocate
    """
    uri = options.read().tracking.uri
    from raregrade.tracking.connection import as_user_error, sqlite_path
    from raregrade.tracking.relocate import relocate as rewrite

    database = sqlite_path(uri)
    if database is None:
        raise UserError(f"tracking.uri is {uri}: only an sqlite database of this project is relocated.")
    if not database.is_file():
        raise UserError(f"there is no {database} yet, so nothing to relocate. Run this in the project that was moved.")
    with as_user_error(uri):
        changed = rewrite(database)
    print(f"{database}: {changed} paths brought up to date" if changed else f"{database}: all files are where it says")


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


COMMANDS = {"init": init, "upgrade": upgrade, "relocate": relocate, "ui": ui}
