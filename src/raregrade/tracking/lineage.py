"""Where data and code came from: the git commit, and the DVC md5 of a dataset.

Reads files and asks ``git``; needs neither mlflow nor dvc installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raregrade.errors import DataError


@dataclass(frozen=True)
class DatasetIdentity:
    """What names a prepared dataset, whoever made it and wherever it lies.

    Attributes:
        content_hash: hash over images, labels and splits, from dataset.json.
        dvc_md5: md5 under which DVC knows the folder; None where DVC does not track it.
        source: where the raw images came from, as dataset.json names it.
        num_images: images in all splits together.
    """

    content_hash: str
    dvc_md5: str | None
    source: str
    num_images: int


def git_commit(cwd: Path | None = None) -> str:
    """The commit of the code that runs.

    ``RAREGRADE_GIT_COMMIT`` where it is set (an image has no .git), else HEAD of the repository around
    ``cwd`` with ``-dirty`` appended where a tracked file is changed, else ``unknown``.
    """
    from_environment = os.environ.get("RAREGRADE_GIT_COMMIT", "").strip()
    if from_environment:
        return from_environment
    head = _git(cwd, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    # Untracked files do not count: outputs of the very run would make every commit dirty.
    changed = _git(cwd, "status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head


def dvc_md5(path: Path) -> str | None:
    """The md5 by which DVC knows the folder or file ``path``; None where DVC does not track it.

    Looks for an output with that path in ``dvc.lock`` of the parent folders, nearest first, up to the
    root of the enclosing DVC repository, and in the ``*.dvc`` files beside it (``dvc add``). The md5 of
    a folder ends in ``.dir``, as in DVC's own files. Stages with a ``wdir`` are not resolved, since
    ``dvc.lock`` does not record it.

    Raises:
        DataError: a ``dvc.lock`` or ``.dvc`` file on the way is not readable YAML.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, DVC's paths do not
    root = next((folder for folder in target.parents if (folder / ".dvc").is_dir()), None)
    if root is None:
        return None
    folders = target.parents[: target.parents.index(root) + 1]
    files = [*sorted(f for f in target.parent.glob("*.dvc") if f.is_file()), *(f / "dvc.lock" for f in folders)]
    for file in files:
        for out in _outs(file):
            if os.path.normpath(file.parent / str(out.get("path"))) == str(target) and out.get("md5"):
                return str(out["md5"])
    return None


def _git(cwd: Path | None, *arguments: str) -> str:
    """Output of a git command; empty where git is missing, slow or refuses."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _outs(file: Path) -> Iterator[Mapping[str, Any]]:
    """The outputs in a ``dvc.lock`` (listed per stage) or ``.dvc`` file; nothing where there is no such file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise DataError(f"cannot read {file}: {err}. Restore it from git, or delete it and run DVC again.") from err
    if not isinstance(content, dict):
        return
    stages = content.get("stages")
    for owner in stages.values() if isinstance(stages, dict) else [content]:
        outs = owner.get("outs") if isinstance(owner, dict) else None
        yield from (out for out in outs or () if isinstance(out, dict))
