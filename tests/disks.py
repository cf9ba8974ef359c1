"""Real disks that are small or read-only, for tests: memory file systems, which only root may mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in ``folder``, with ``size=8m`` or ``ro``; skips the test where none may be had."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system; the test with a file-size limit runs for everybody")
    if shutil.which("mount") is None:
        pytest.skip("mount, of util-linux, is not installed: a small file system takes it")
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this container may not mount a file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
