"""The repository root on the import path, where ``tests.servers`` lies, and tracking that logs nothing."""

import sys
from pathlib import Path

import pytest

from raregrade.tracking import Tracking

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.fixture
def no_tracking():
    return Tracking("none", "steps")
