"""What training tests share: a tiny dataset and settings under which an epoch takes a fraction of a second."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from raregrade.config import (
    AugmentConfig,
    DataConfig,
    LossChoice,
    PhantomConfig,
    TrainConfig,
    TrainSection,
)
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom
from raregrade.data.prepare import prepare_dataset
from raregrade.losses import LOSSES
from raregrade.training.reporter import Reporter


class RecordingReporter(Reporter):
    """Remembers what it was told; sends this process SIGTERM after ``stop_after`` steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.resumed_at = -1
        self.steps = 0
        self.rows: list[dict[str, float]] = []
        self.bests: list[bool] = []
        self.notes: list[str] = []

    def started(self, *, resumed_at: int, **_: object) -> None:
        self.resumed_at = resumed_at

    def restored(self, history: Sequence[dict[str, float]]) -> None:
        self.rows += history

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        self.rows.append(row)
        self.bests.append(best)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def reporter() -> type[RecordingReporter]:
    return RecordingReporter


def tiny_section(kind: str = "ce", **train: object) -> TrainSection:
    settings = {
        "backbone": "resnet10t",
        "epochs": 2,
        "batch_size": 16,
        "lr": 1e-3,
        "precision": "float32",
        "threads": 1,
        "augment": AugmentConfig(),
    } | train
    return TrainSection(train=TrainConfig(**settings), loss=LossChoice(name=kind, kind=kind, params=LOSSES[kind]()))


@pytest.fixture
def section() -> object:
    return tiny_section


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """About 100 images of 32 px in four grades."""
    root = tmp_path_factory.mktemp("phantom")
    draw_phantom(PhantomConfig(patients=40, image_size=32), 7, root / "raw")
    classes = list(PHANTOM_LABELS["ordinal"].classes)
    config = DataConfig(source="phantom", path=str(root / "raw"), task="ordinal", classes=classes, image_size=32)
    return prepare_dataset(config, 7, root / "prepared")
