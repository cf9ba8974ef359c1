"""The dataset as a study sees it: without its test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from raregrade.data.manifest import PreparedDataset
from raregrade.errors import RaregradeError

Rows = npt.NDArray[np.int64] | slice


class HeldOutTestError(RaregradeError):
    """Something asked for the test split while parameters are being chosen."""


class TuningDataset(PreparedDataset):
    """A prepared dataset whose test images, labels and masks cannot be read.

    Rows keep their numbers. Those of the test split stand in the manifest with nothing but ``split``; asking for the
    split, or for what one of its rows holds, raises ``HeldOutTestError``.
    """

    def __init__(self, root: Path, info: dict[str, Any], manifest: pd.DataFrame) -> None:
        super().__init__(root, info, manifest)
        test = (self.manifest["split"] == "test").to_numpy()
        self._test = test
        known = pd.Series(~test, index=self.manifest.index)
        blank = {
            str(column): values.where(known) if pd.api.types.is_numeric_dtype(values) else values.where(known, "")
            for column, values in self.manifest.items()
            if column != "split"
        }
        folds = self.manifest["fold"].where(known, -1)
        self.manifest = self.manifest.assign(**blank).assign(fold=folds)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of train or val. Raises HeldOutTestError for the test split."""
        if split == "test":
            _refuse()
        return super().rows(split)

    def images(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """As the whole dataset's. Raises HeldOutTestError for a row of the test split."""
        self._check(rows)
        return super().images(rows)

    def targets(self, rows: Rows) -> npt.NDArray[Any]:
        """As the whole dataset's. Raises HeldOutTestError for a row of the test split."""
        self._check(rows)
        return super().targets(rows)

    def masks(self, rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
        """As the whole dataset's. Raises HeldOutTestError for a row of the test split."""
        self._check(rows)
        return super().masks(rows)

    def _check(self, rows: Rows) -> None:
        if self._test[rows].any():
            _refuse()


def _refuse() -> NoReturn:
    raise HeldOutTestError("the test split cannot be reached while parameters are tuned; they are chosen on validation")
