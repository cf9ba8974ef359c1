"""The folder of real images: RAREGRADE_REAL_DATA, or ../shared/data beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("RAREGRADE_REAL_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set RAREGRADE_REAL_DATA to a folder of real images")
    return folder
