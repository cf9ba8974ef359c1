"""Batches of training images on the training device.

Images that fit live on the device as uint8 and a batch is one gather; images that do not are streamed
from the memory map, one batch ahead. Which images make a batch is decided elsewhere: this module only
fetches them.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raregrade.data.manifest import PreparedDataset

# Of the memory that is free, this share may hold images; the rest is for activations and the optimiser.
_RESIDENT_SHARE = 0.4
_CHUNK = 4096
# Counting takes eight bytes a pixel.
_COUNTED_PIXELS = 1 << 24


class ImageBatches:
    """The images of ``rows`` of a dataset, by position within ``rows``.

    Args:
        dataset: the prepared dataset.
        rows: int [N], row numbers of the manifest.
        device: where batches are wanted.
        resident: True keeps all images on the device, False streams them, None decides by the free memory.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: npt.NDArray[np.int64],
        device: torch.device,
        *,
        resident: bool | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.device = device
        size = len(rows) * dataset.image_size**2 * dataset.channels
        self.resident = size <= _RESIDENT_SHARE * free_memory(device) if resident is None else resident
        self._images = self._load_all() if self.resident else None

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, positions: Sequence[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield uint8 [B, C, H, W] on the device for each array of positions, in order."""
        if self._images is not None:
            for batch in positions:
                index = torch.from_numpy(batch).to(self.device)
                yield self._images.index_select(0, index)
        elif positions:
            yield from self._stream(positions)

    def _stream(self, positions: Sequence[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = [reader.submit(self._read, batch) for batch in positions[:1]]
            for following in [*positions[1:], None]:
                ready = pending.pop().result()
                if following is not None:
                    pending.append(reader.submit(self._read, following))
                yield ready.to(self.device, non_blocking=True)

    def _load_all(self) -> Tensor:
        n, size, channels = len(self.rows), self.dataset.image_size, self.dataset.channels
        images = torch.empty((n, channels, size, size), dtype=torch.uint8, device=self.device)
        for start in range(0, n, _CHUNK):
            block = self.dataset.images(self.rows[start : start + _CHUNK])
            images[start : start + _CHUNK] = torch.from_numpy(np.array(block)).to(self.device).permute(0, 3, 1, 2)
        return images

    def _read(self, batch: npt.NDArray[np.int64]) -> Tensor:
        # Sorted reads keep the memory map sequential; the inverse puts the batch back in its order.
        rows = self.rows[batch]
        order = np.argsort(rows, kind="stable")
        images = np.empty(
            (len(rows), self.dataset.image_size, self.dataset.image_size, self.dataset.channels), np.uint8
        )
        images[order] = self.dataset.images(rows[order])
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def channel_statistics(dataset: PreparedDataset, rows: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of pixel values 0–255 over ``rows``.

    Sums are kept as integers, so the result does not depend on the order of the images. A channel
    without any variation gets a standard deviation of 1.
    """
    total = np.zeros(dataset.channels, dtype=np.int64)
    squares = np.zeros(dataset.channels, dtype=np.int64)
    chunk = max(1, _COUNTED_PIXELS // dataset.image_size**2)
    for start in range(0, len(rows), chunk):
        block = dataset.images(rows[start : start + chunk])
        for channel in range(dataset.channels):
            # A histogram of 256 bins sums exactly, and faster than casting the pixels to int64.
            counts = np.bincount(block[..., channel].ravel(), minlength=256).astype(np.int64)
            values = np.arange(256, dtype=np.int64)
            total[channel] += counts @ values
            squares[channel] += counts @ values**2
    pixels = len(rows) * dataset.image_size**2
    mean = total / pixels
    variance = np.maximum(squares / pixels - mean**2, 0)
    std = np.where(variance > 1e-6, np.sqrt(variance), 1.0)
    return mean.tolist(), std.tolist()


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still get: of the GPU, or of the machine, its container and its own limit."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = [float(psutil.virtual_memory().available)]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - psutil.Process().memory_info().vms)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        most, now = ((group / name).read_text(encoding="utf-8") for name in ("memory.max", "memory.current"))
        free.append(int(most) - int(now))
    return max(0.0, min(free))
