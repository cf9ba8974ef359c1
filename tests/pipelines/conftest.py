"""The repository root on the import path, a params.yaml, and a folder to work in like a checkout."""

import os
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.pop("RAREGRADE_IMAGE", None)


def _tiny():
    """A params.yaml that trains in seconds: 40 patients, images of 32 px, one epoch."""
    return {
        "seed": 35,
        "phantom": {"patients": 40, "image_size": 32},
        "data": {
            "source": "phantom",
            "path": "data/raw/phantom",
            "task": "ordinal",
            "classes": ["none", "mild", "moderate", "severe"],
            "image_size": 32,
        },
        "train": {"backbone": "resnet10t", "epochs": 1, "precision": "float32", "threads": 1, "lr": 1e-3},
        "losses": {"ce": {}, "cdw_ce": {"power": 2.0}},
        "compare": {"losses": ["ce", "cdw_ce"], "seeds": [1, 2], "baseline": "ce"},
        "gate": [{"metric": "val_qwk", "threshold": -1.0}],
        "alarms": {"refuse": False},  # after one epoch a model misses grades
        "register": {"name": "phantom-severity"},
        "tracking": {"uri": "none", "experiment": "pipelines"},
    }


@pytest.fixture(autouse=True)
def _image_of_this_version(monkeypatch):
    """A command that is given another image leaves it to the tests after it otherwise."""
    monkeypatch.setenv("RAREGRADE_IMAGE", "")


@pytest.fixture
def raw_params():
    """The content of a params.yaml, for the test to change."""
    return _tiny()


@pytest.fixture(scope="module")
def tiny():
    """As ``raw_params``, for fixtures of a whole module."""
    return _tiny()


@pytest.fixture
def workplace(tmp_path, raw_params, monkeypatch):
    """A working folder with the pipelines and params.yaml in it."""
    for name in ("pipelines", "components"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params))
    monkeypatch.chdir(tmp_path)
    return tmp_path
