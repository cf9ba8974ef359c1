"""Running a command from a sub-folder of a project: params.yaml is looked for upwards, as git looks for its folder.

The command then runs in the folder of params.yaml, so that relative paths in that file mean the same from anywhere.
Paths on the command line are relative to where it was typed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PARAMS = "params.yaml"
# Options that take a path or else a URI or a name, so that they are read as text.
_PATH_OR_URI = {"checkpoints", "model", "repo", "data_repo", "storage"}
_FILE_OR_NAME = {"preset"}


def project_folder(start: Path) -> Path | None:
    """The nearest folder from ``start`` upwards that holds params.yaml; None where there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / PARAMS).is_file()), None)


def find_project_first(command: Any) -> None:
    """Make every command below ``command`` that reads params.yaml run in the project's folder.

    Left as they are: commands for which --params is given, and those run where no folder above has params.yaml.
    """
    for below in getattr(command, "commands", {}).values():
        find_project_first(below)
    if any(parameter.name == "params" for parameter in command.params):
        run = command.invoke

        def invoke(context: Any) -> Any:
            _enter(context)
            return run(context)

        command.invoke = invoke


def _enter(context: Any) -> None:
    start = Path.cwd()
    folder = project_folder(start)
    if folder in (None, start) or _given(context, "params"):
        return
    os.chdir(folder)
    for name, value in context.params.items():
        if _given(context, name):
            context.params[name] = _moved(value, start, name)


def _given(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _moved(value: Any, start: Path, name: str) -> Any:
    """``value`` of option ``name`` with relative paths rewritten from ``start`` to the working folder."""
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, start, name) for item in value)
    is_path = isinstance(value, Path)
    if isinstance(value, str):
        is_file = name in _FILE_OR_NAME and (start / value).is_file()
        is_path = is_file or (name in _PATH_OR_URI and ":" not in value)
    return type(value)(os.path.relpath(start / value)) if is_path else value
