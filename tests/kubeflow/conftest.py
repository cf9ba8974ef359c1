"""A params.yaml, and a folder to work in."""

import os

import pytest
import yaml

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
    """A working folder with params.yaml in it."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params))
    monkeypatch.chdir(tmp_path)
    return tmp_path
