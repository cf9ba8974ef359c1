"""Files that come with the package: the DVC stages of a project, templates, the changelog.

The DVC stages and the changelog also stand at the top of a checkout; a test holds both copies equal.
"""

from __future__ import annotations

from importlib.resources import files


def read_shipped(name: str) -> str:
    """The text of a file below ``raregrade/project/files``; ``name`` has ``/`` between folders."""
    return files("raregrade.project").joinpath("files", *name.split("/")).read_text(encoding="utf-8")
