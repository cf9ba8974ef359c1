"""Readers of raw datasets, one module per format. Each yields records that ``prepare`` turns into a store."""

from raregrade.config import DataConfig
from raregrade.data.sources.base import RawDataset
from raregrade.data.sources.folder import read_folder
from raregrade.data.sources.medmnist import read_medmnist
from raregrade.data.sources.phantom import read_phantom

_READERS = {"phantom": read_phantom, "folder": read_folder, "medmnist": read_medmnist}


def read_source(config: DataConfig) -> RawDataset:
    """Read and check the raw data that ``config`` names. Raises DataError or ConfigError as the reader does."""
    return _READERS[config.source](config)


__all__ = ["RawDataset", "read_source"]
