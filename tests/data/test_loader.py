"""Batches are the same images whether they live on the device or are streamed; statistics are exact."""

import numpy as np
import pytest
import torch

from raregrade.data.loader import ImageBatches, channel_statistics
from raregrade.data.manifest import PreparedDataset

CPU = torch.device("cpu")


@pytest.mark.parametrize("resident", [True, False])
def test_batches_hold_the_images_at_their_positions(prepared: PreparedDataset, resident: bool) -> None:
    rows = prepared.rows("train")
    batches = ImageBatches(prepared, rows, CPU, resident=resident)
    positions = [np.array([5, 0, 3]), np.array([1]), np.array([3, 3, 2])]
    fetched = list(batches.batches(positions))
    assert len(batches) == len(rows)
    for batch, index in zip(fetched, positions, strict=True):
        expected = prepared.images(rows[index]).transpose(0, 3, 1, 2)
        assert batch.dtype == torch.uint8
        assert np.array_equal(batch.numpy(), expected)


@pytest.mark.parametrize("resident", [True, False])
def test_no_positions_are_no_batches(prepared: PreparedDataset, resident: bool) -> None:
    batches = ImageBatches(prepared, prepared.rows("train"), CPU, resident=resident)
    assert list(batches.batches([])) == []


def test_channel_statistics_equal_those_of_the_pixels(prepared: PreparedDataset) -> None:
    rows = prepared.rows("train")
    pixels = prepared.images(rows).astype(np.float64)
    mean, std = channel_statistics(prepared, rows)
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)))
