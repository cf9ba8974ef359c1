"""Which training images make which batch: a function of (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raregrade.config import TrainConfig
from raregrade.data.samplers import class_balanced_indices, pk_batches
from raregrade.losses.base import Stage


def epoch_batches(
    targets: npt.NDArray[np.generic], config: TrainConfig, stage: Stage, *, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """The batches of one epoch as arrays of positions in 0..N-1.

    Every batch has ``config.batch_size`` images: what is left over waits for another epoch's order, because a
    last batch of one or two images upsets batch normalisation. With fewer images than that, one batch holds all.
    """
    n = len(targets)
    if stage.sampler == "pk":
        per_class = stage.images_per_class or 2
        return pk_batches(targets, max(2, config.batch_size // per_class), per_class, seed=seed, epoch=epoch)
    if "class_balanced" in (stage.sampler, config.sampler):
        order = class_balanced_indices(targets, seed=seed, epoch=epoch, n=n)
    else:
        order = np.random.default_rng([seed, epoch]).permutation(n)
    size = min(config.batch_size, n)
    return [order[start : start + size] for start in range(0, n - size + 1, size)]
