"""A real, empty MLflow database for each test, copied from one that is made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raregrade.tracking import DatasetIdentity, Tracking
from raregrade.tracking.connection import open_client


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating one takes seconds of migrations."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path) -> Tracking:
    (tmp_path / "store").mkdir()
    database = shutil.copy(empty_database, tmp_path / "store" / "mlflow.db")
    return Tracking(f"sqlite:///{database}", "grades", group="group1")


@pytest.fixture
def dataset() -> DatasetIdentity:
    return DatasetIdentity("c" * 64, "d41d8cd98f00b204e9800998ecf8427e.dir", "phantom", 120)
