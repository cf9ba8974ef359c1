"""Writing a project: its files from templates, and git and DVC around them. Nothing that exists is overwritten."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from raregrade import __version__
from raregrade.atomic import write_text
from raregrade.config import MadeFor, dump_params
from raregrade.config.metrics import DEFAULT_SELECTION
from raregrade.errors import UserError
from raregrade.project.guess import Guess
from raregrade.project.shipped import read_shipped
from raregrade.project.upgrade import section_text

PHANTOM_DATA = {
    "source": "phantom",
    "path": "data/raw/phantom",
    "task": "ordinal",
    "classes": ["none", "mild", "moderate", "severe"],
    "image_size": 64,
    "color": "rgb",
}
_STAGES = ("dvc.yaml", "register/dvc.yaml", "plots/epochs.json")
_PHANTOM_STAGE = "data/raw/dvc.yaml"
_APPENDED = {".gitignore": "gitignore", ".dvcignore": "dvcignore"}
_LMF = {"alpha": 1.5, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 10.0}


def project_files(folder: Path, guess: Guess) -> dict[str, str]:
    """The files of a project for ``guess`` in ``folder``, by their paths below it. A README that is there stays."""
    phantom = guess.data["source"] == "phantom"
    losses = _losses(guess.data)
    context = {
        "title": folder.name or "raregrade",
        "name": registry_name(folder.name),
        "version": __version__,
        "phantom": phantom,
        "path": guess.data["path"],
        "data": _data_section(guess),
        "image_size": guess.data["image_size"],
        "metric": DEFAULT_SELECTION[guess.data["task"]],
        "losses": "".join(f"  {name}: {_flow(params)}\n" for name, params in losses.items()),
        "compared": list(losses),
        "made_for": section_text(MadeFor()),
    }
    files = {name: _rendered(f"{name}.j2", context) for name in ("params.yaml", "README.md")}
    if (folder / "README.md").exists():
        del files["README.md"]
    return files | {name: read_shipped(name) for name in (*_STAGES, *([_PHANTOM_STAGE] if phantom else []))}


def path_in_project(folder: Path, data: Path) -> str:
    """How params.yaml names the raw images: relative to the project where they lie in it.

    Raises:
        UserError: the project lies in the folder of the images, so that its own outputs would count as images.
    """
    folder, data = folder.resolve(), data.resolve()
    if folder.is_relative_to(data):
        raise UserError(
            f"the project {folder} lies in the folder of the images. Move images and table to a folder of their own, "
            "such as data/raw/mine, or make the project elsewhere: `raregrade init PROJECT --table …`."
        )
    return data.relative_to(folder).as_posix() if data.is_relative_to(folder) else str(data)


def check_free(folder: Path, names: Mapping[str, str]) -> None:
    """Raise UserError where a file of the project is there already."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file. Give a folder.")
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise UserError(
            f"{folder} has {', '.join(there)} already, and nothing is overwritten. Give another folder, or move these."
        )


def write_project(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write ``files`` and complete .gitignore and .dvcignore; the names of what was written or added to.

    Raises:
        UserError: a file is there already; then nothing is written.
    """
    check_free(folder, files)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
    return [*files, *(name for name, source in _APPENDED.items() if _add_lines(folder / name, read_shipped(source)))]


def start_repositories(folder: Path) -> list[str]:
    """Start git and DVC where the folder is in none; the commands that are left to the user, such as without git."""
    left = []
    if not _in_git(folder) and not _run(folder, "git", "init", "--quiet"):
        left.append("git init")
    if not any((above / ".dvc").is_dir() for above in (folder.resolve(), *folder.resolve().parents)):
        where = [] if (folder / ".git").exists() else ["--subdir" if _in_git(folder) else "--no-scm"]
        if not _run(folder, sys.executable, "-m", "dvc", "init", "--quiet", *where):
            left.append(" ".join(["dvc init", *where]))
    return left


def registry_name(folder_name: str) -> str:
    """A name for the registry that MLflow takes, from the name of the project's folder."""
    plain = unicodedata.normalize("NFKD", folder_name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "model"


def _losses(data: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline, and what is made for such labels."""
    if data["task"] == "ordinal":
        return {"ce": {}, "cdw_ce": {"power": 2.0, "margin": 0.0}, "lmf": _LMF}
    if data["task"] == "multiclass":
        return {"ce": {}, "balanced_softmax": {}, "lmf": _LMF}
    below = {"hbce": {"penalty": 0.5, "mode": "hard"}} if data.get("hierarchy") else {"focal_bce": {}}
    return {"bce": {}, "weighted_bce": {}, **below}


def _data_section(guess: Guess) -> str:
    """A line for each key, with the reason behind it."""
    lines = [(f"  {key}: {_flow(value)}", guess.reasons.get(key)) for key, value in guess.data.items()]
    return "".join(f"{text} # {reason}\n" if reason else f"{text}\n" for text, reason in lines)


def _flow(value: Any) -> str:
    """``value`` as YAML on one line, quoted where params.yaml would read something else."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in value.items())}}}"
    return dump_params([value]).strip()[1:-1].replace("\n", "")


def _rendered(name: str, context: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML and Markdown, not HTML
    )
    return environment.from_string(read_shipped(name)).render(context).rstrip() + "\n"


def _add_lines(path: Path, wanted: str) -> bool:
    """Add the lines of ``wanted`` that ``path`` lacks; whether there were any."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    missing = [line for line in wanted.splitlines() if line not in text.splitlines()]
    if missing:
        before = text if not text or text.endswith("\n") else f"{text}\n"
        write_text(path, before + "\n".join(missing) + "\n")
    return bool(missing)


def _in_git(folder: Path) -> bool:
    return _run(folder, "git", "rev-parse", "--git-dir")


def _run(folder: Path, program: str, *arguments: str) -> bool:
    """Whether the command succeeds."""
    if shutil.which(program) is None:
        return False
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode == 0
