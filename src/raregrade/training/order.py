"""Which training images make which batch: a function of (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raregrade.config import TrainConfig
from raregrade.data.samplers import class_balanced_indices, pk_batches
from raregrade.errors import UserError
from raregrade.losses import Stage


def epoch_batches(
    targets: npt.NDArray[np.generic],
    config: TrainConfig,
    stage: Stage,
    *,
    seed: int,
    epoch: int,
    processes: int = 1,
) -> list[npt.NDArray[np.int64]]:
    """The batches of one epoch as arrays of positions in 0..N-1, as many and as large whatever the sampler.

    Every batch has ``config.batch_size`` images: what is left over waits for another epoch's order, because a
    last batch of one or two images upsets batch normalisation. With fewer images than that, one batch holds all,
    but for so few that ``processes`` and forward passes get equal shares. P×K batches relate images, and a loss
    sees one forward pass at a time: there each of ``config.accumulate`` passes is a P×K batch of its own.

    Raises:
        UserError: fewer images than shares, or what ``pk_batches`` refuses.
    """
    n, parts = len(targets), processes * config.accumulate
    size = min(config.batch_size, n) // parts * parts
    if size == 0:
        raise UserError(
            f"the training split has {n} images, fewer than the {parts} equal parts into which train.accumulate = "
            f"{config.accumulate} and {processes} process{'es' if processes > 1 else ''} divide a batch. Lower them"
        )
    if stage.sampler == "pk":
        passes = config.accumulate
        batches = pk_batches(
            targets, size // passes, stage.images_per_class or 2, count=n // size * passes, seed=seed, epoch=epoch
        )
        return [np.concatenate(batches[start : start + passes]) for start in range(0, len(batches), passes)]
    if "class_balanced" in (stage.sampler, config.sampler):
        order = class_balanced_indices(targets, seed=seed, epoch=epoch, n=n)
    else:
        order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + size] for start in range(0, n - size + 1, size)]
