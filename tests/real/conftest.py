"""The folder of real images, which RAREGRADE_REAL_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    named = os.environ.get("RAREGRADE_REAL_DATA")
    if not named:
        pytest.skip("RAREGRADE_REAL_DATA names no folder of real images")
    if not Path(named).is_dir():
        pytest.fail(f"RAREGRADE_REAL_DATA: there is no folder {named}")
    return Path(named)
