"""What goes into the model: the forward passes of training, and the validation images.

Shapes: N training images, B images of a batch over all processes, b those of this process, O outputs,
C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.data.augment import apply_draws, draws_of_epoch
from raregrade.data.loader import ImageBatches
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import ConfigError
from raregrade.training.distributed import Processes, gather_rows, share

Positions = npt.NDArray[np.int64]

# Without gradients four times as many images fit as in a forward pass of training.
VALIDATED_FOR_EACH = 4
_VALIDATED_AT_MOST = 256


class TrainingFeed:
    """Augmented images and targets of batches, on the training device.

    Args:
        dataset: a prepared dataset.
        rows: int [N], its training rows; batches are positions in them.
        config: augmentation, and into how many forward passes a batch is split.
        seed: of the augmentation.
        device: where the model is.
        processes: this process gets its share of each batch's images, and the targets of all.

    Raises:
        ConfigError: the batch size doesn't divide into processes and forward passes.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: Positions,
        config: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.rows = rows
        self.config = config
        self.seed = seed
        self.device = device
        self.processes = processes
        self.parts = processes.world * config.accumulate
        if config.batch_size % self.parts:
            fitting = max(self.parts, round(config.batch_size / self.parts) * self.parts)
            raise ConfigError(
                f"train.batch_size = {config.batch_size} doesn't divide into {processes.world} processes with "
                f"{config.accumulate} forward passes each: it is what one of these steps sees over all of them. "
                f"Set train.batch_size={fitting}"
            )
        self.images = ImageBatches(dataset, rows, device)
        self.targets = torch.tensor(dataset.targets(rows), device=device)

    def passes(self, batches: Sequence[Positions], epoch: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """For each batch its forward passes: images float [b, C, H, W] of this process, targets [B, …] of all."""
        if not batches:
            return
        parts = [part for batch in batches for part in np.array_split(batch, self.config.accumulate)]
        own = [share(part, self.processes) for part in parts]
        # Positions travel to the device once an epoch; a step then waits for nothing.
        indices = self._on_device(parts)
        own_indices = self._on_device(own)
        draws = draws_of_epoch(self.rows, seed=self.seed, epoch=epoch).to(self.device)
        passes: list[tuple[Tensor, Tensor]] = []
        for images, index, own_index in zip(self.images.batches(own), indices, own_indices, strict=True):
            changed = apply_draws(images, draws.index_select(0, own_index), self.config.augment)
            passes.append((changed, self.targets.index_select(0, index)))
            if len(passes) == self.config.accumulate:
                yield passes
                passes = []

    def _on_device(self, parts: Sequence[Positions]) -> tuple[Tensor, ...]:
        return torch.split(torch.from_numpy(np.concatenate(parts)).to(self.device), [len(part) for part in parts])


class ValidationFeed:
    """The validation images, shared out among the processes.

    Args:
        dataset: a prepared dataset.
        rows: int [N], its validation rows.
        images_per_pass: images of this process in a forward pass of training.
        device: where the model is.
        processes: each predicts its share, and all know all outputs.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: Positions,
        *,
        images_per_pass: int,
        device: torch.device,
        processes: Processes,
    ) -> None:
        batch_size = min(_VALIDATED_AT_MOST, VALIDATED_FOR_EACH * images_per_pass)
        shares = np.array_split(np.arange(len(rows)), processes.world)
        self.lengths = [len(part) for part in shares]
        self.images = ImageBatches(dataset, rows[shares[processes.rank]], device)
        order = np.arange(len(self.images))
        self.batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        self.processes = processes

    def logits(self, model: nn.Module, num_outputs: int) -> Tensor:
        """Outputs [N, O] of ``model`` in evaluation mode, in float32, on the CPU."""
        parts = self.own_logits(model, self.batches)
        return gather_rows(torch.cat([torch.zeros((0, num_outputs)), *parts]), self.lengths, self.processes)

    def own_logits(self, model: nn.Module, batches: Sequence[Positions]) -> list[Tensor]:
        """As ``logits``, of each of ``batches`` of this process's images."""
        model.eval()
        with torch.inference_mode():
            return [model(images).float().cpu() for images in self.images.batches(batches)]
