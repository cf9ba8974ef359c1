"""For every test: one thread a process, no network beyond this machine, settings of the caller left out."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# For what tests share: tests.servers, tests.disks.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

# Before torch is imported: tests run beside each other, and one thread each gives the same numbers everywhere.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RAREGRADE_DEBUG", "RAREGRADE_GROUP", "RAREGRADE_GIT_COMMIT"):
    os.environ.pop(name, None)

settings.register_profile("raregrade", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.load_profile("raregrade")


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: only addresses of this machine may be connected to."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(str(address[0])):
            raise ConnectionRefusedError(f"tests run offline: connection to {address!r} refused")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _plain_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing a test forgets to place lands in the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
