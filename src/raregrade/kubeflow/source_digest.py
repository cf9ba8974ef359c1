"""A hash of the package's files, by which an image can be told from one that was built of other sources.

The standard library alone: ``infra/docker/build.py`` uses it before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def source_digest(package: Path) -> str:
    """sha256 over the relative paths and contents of all files below the folder ``package``, caches left out."""
    digest = hashlib.sha256()
    # In a checkout links lead to the pipelines and components; in an installed package they are folders.
    files = {
        path.relative_to(package).as_posix(): path
        for folder, _, names in os.walk(package, followlinks=True)
        for path in map(Path(folder).joinpath, names)
        if "__pycache__" not in path.parts
    }
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
