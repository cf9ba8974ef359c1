"""Small tables with their images, in the forms in which real data sets come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes ``raw/labels.csv`` with a header and rows, and noise under the names in the column ``image``."""

    def write(header: str, rows: Sequence[str], *, image: int = 0, size: int = 70, grey: bool = False) -> Path:
        root = tmp_path / "raw"
        root.mkdir(exist_ok=True)
        random = np.random.default_rng(0)
        for row in rows:
            name = row.split(",")[image]
            path = root / (name if "." in name else f"images/{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (size, size + 10) if grey else (size, size + 10, 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
        (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return root / "labels.csv"

    return write
