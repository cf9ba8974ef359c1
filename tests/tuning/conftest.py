"""A small prepared phantom, sections with studies of a few trials, and the repository root on the import path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raregrade.config import (
    DataConfig,
    LossChoice,
    PhantomConfig,
    StudyConfig,
    StudyStorage,
    TrainConfig,
    TuneSection,
)
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom
from raregrade.data.prepare import prepare_dataset
from raregrade.losses import LOSSES
from raregrade.tracking import Tracking
from raregrade.tuning.plan import TunePlan, make_plan

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

MakePlan = Callable[..., TunePlan]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 images of 16 px in four grades. Read it, do not change it."""
    root = tmp_path_factory.mktemp("phantom")
    draw_phantom(PhantomConfig(patients=60, max_images_per_patient=2, image_size=16), 7, root / "raw")
    classes = list(PHANTOM_LABELS["ordinal"].classes)
    config = DataConfig(source="phantom", path=str(root / "raw"), task="ordinal", classes=classes, image_size=16)
    prepare_dataset(config, 7, root / "prepared")
    return root / "prepared"


def tune_section(loss: str = "cdw_ce", *, epochs: int = 2, objective: str = "qwk", **tune: Any) -> TuneSection:
    """A study that takes seconds."""
    settings = {"trials": 4, "repeats": 1, "confirm": 2, "pruner": "none"} | tune
    return TuneSection(
        tune=StudyConfig.model_validate(settings),
        objective=objective,
        train=TrainConfig(backbone="test_resnet", epochs=epochs, threads=1, precision="float32", lr=3e-3),
        loss=LossChoice(name=loss, kind=loss, params=LOSSES[loss]()),
        task="ordinal",
    )


@pytest.fixture
def section() -> Callable[..., TuneSection]:
    return tune_section


@pytest.fixture
def storage(tmp_path: Path) -> StudyStorage:
    """A journal of the test's own."""
    return StudyStorage(url=str(tmp_path / "studies.log"))


@pytest.fixture
def plan(prepared: Path, storage: StudyStorage, tmp_path: Path) -> MakePlan:
    """``plan("cdw_ce", trials=6)``: a plan on the small phantom that keeps everything in the test's folder."""

    def make(loss: str = "cdw_ce", *, tracking: str = "none", data: Path | None = None, **settings: Any) -> TunePlan:
        kept = settings.pop("storage", storage)
        return make_plan(
            tune_section(loss, **settings),
            data or prepared,
            storage=kept,
            tracking=Tracking(tracking, "tuning"),
            checkpoints=tmp_path / "checkpoints",
        )

    return make
