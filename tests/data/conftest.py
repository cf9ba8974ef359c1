"""Small datasets on disk: a folder of images with its table, a MedMNIST file, a phantom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raregrade.config import DataConfig, PhantomConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom
from raregrade.data.prepare import prepare_dataset

GRADES = ("low", "middle", "high")


class ImageFolder:
    """Twelve patients with two images each, grades in turn; ``table`` may be changed before ``config()``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir(parents=True)
        rng = np.random.default_rng(3)
        rows: list[dict[str, Any]] = []
        for patient in range(12):
            for image in range(2):
                name = f"images/{patient:02d}_{image}.png"
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / name)
                rows.append({"filename": name, "grade": GRADES[patient % 3], "patient": f"p{patient:02d}"})
        self.table = pd.DataFrame(rows)

    def config(self, **keys: Any) -> DataConfig:
        """Write the table and describe the folder; ``keys`` replace keys of ``data:``."""
        self.table.to_csv(self.root / "labels.csv", index=False)
        return DataConfig.model_validate(
            {
                "source": "folder",
                "path": str(self.root),
                "task": "ordinal",
                "classes": list(GRADES),
                "image_size": 16,
                "label_column": "grade",
                "group_column": "patient",
                "split": {"val": 0.25, "test": 0.25, "folds": 2},
                **keys,
            }
        )


@pytest.fixture
def image_folder(tmp_path: Path) -> ImageFolder:
    return ImageFolder(tmp_path / "raw")


@pytest.fixture
def write_medmnist(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of three grades: 12 train, 6 val, 6 test images of 10 px; arrays can be replaced or left out."""

    def write(without: Sequence[str] = (), **arrays: Any) -> Path:
        rng = np.random.default_rng(4)
        content: dict[str, Any] = {}
        for split, n in (("train", 12), ("val", 6), ("test", 6)):
            content[f"{split}_images"] = rng.integers(0, 256, (n, 10, 10), dtype=np.uint8)
            content[f"{split}_labels"] = (np.arange(n) % 3)[:, None].astype(np.uint8)
        content = {k: v for k, v in (content | arrays).items() if k not in without}
        path = tmp_path / "small.npz"
        np.savez(path, **content)
        return path

    return write


@pytest.fixture
def medmnist_config() -> Callable[..., DataConfig]:
    def config(path: Path, **keys: Any) -> DataConfig:
        return DataConfig.model_validate(
            {
                "source": "medmnist",
                "path": str(path),
                "task": "ordinal",
                "classes": list(GRADES),
                "image_size": 16,
                "color": "grey",
                "split": {"folds": 2},
                **keys,
            }
        )

    return config


@pytest.fixture
def phantom_config() -> Callable[..., DataConfig]:
    """The ``data:`` section that reads the phantom of ``flavour`` in ``path``."""

    def config(path: Path, flavour: str, **keys: Any) -> DataConfig:
        space = PHANTOM_LABELS[flavour]
        return DataConfig.model_validate(
            {
                "source": "phantom",
                "path": str(path),
                "task": space.task,
                "classes": list(space.classes),
                "hierarchy": [list(edge) for edge in space.edges],
                "image_size": 16,
                "color": "grey",
                **keys,
            }
        )

    return config


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A phantom of each flavour: 40 patients, 24 px, seed 7. Read only."""
    root = tmp_path_factory.mktemp("phantoms")
    for flavour in PHANTOM_LABELS:
        draw_phantom(PhantomConfig(flavour=flavour, patients=40, image_size=24), 7, root / flavour)  # type: ignore[arg-type]
    return {flavour: root / flavour for flavour in PHANTOM_LABELS}


@pytest.fixture
def prepared(phantoms: dict[str, Path], phantom_config: Callable[..., DataConfig], tmp_path: Path) -> PreparedDataset:
    """The ordinal phantom in colour, 16 px."""
    return prepare_dataset(phantom_config(phantoms["ordinal"], "ordinal", color="rgb"), 1, tmp_path / "prepared")
