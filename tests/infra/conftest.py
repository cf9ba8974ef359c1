"""The repository root on the import path, where ``tests.servers`` and ``tests.infra`` lie."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# The comparison that a registration starts from is made by the fixtures of the registry's tests.
from tests.registry.conftest import compare, dataset, make_model  # noqa: E402, F401
