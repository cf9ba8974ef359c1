"""The identity of a prepared dataset, as runs and model cards record it."""

from raregrade.data.manifest import PreparedDataset
from raregrade.tracking import DatasetIdentity, dvc_md5


def dataset_identity(dataset: PreparedDataset) -> DatasetIdentity:
    """Content hash, DVC md5 (where the folder is tracked), source and size of ``dataset``."""
    return DatasetIdentity(
        content_hash=dataset.content_hash,
        dvc_md5=dvc_md5(dataset.root),
        source=str(dataset.info["source"]),
        num_images=len(dataset.manifest),
    )
