"""Batches are a function of seed and epoch, and hold every image at most once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import TrainConfig
from raregrade.losses.base import Stage
from raregrade.training.order import epoch_batches

STAGE = Stage("train")


@given(n=st.integers(1, 200), size=st.integers(1, 64), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 999))
def test_all_batches_are_full_and_no_image_comes_twice(n: int, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(np.zeros(n, dtype=np.int64), TrainConfig(batch_size=size), STAGE, seed=seed, epoch=epoch)
    assert {len(b) for b in batches} == {min(size, n)}
    positions = np.concatenate(batches)
    assert len(set(positions.tolist())) == len(positions) == n - (n % size if n >= size else 0)


def test_another_epoch_is_another_order_and_the_same_epoch_the_same() -> None:
    targets, config = np.zeros(100, dtype=np.int64), TrainConfig(batch_size=50)
    first = epoch_batches(targets, config, STAGE, seed=1, epoch=0)
    assert all(
        np.array_equal(a, b) for a, b in zip(first, epoch_batches(targets, config, STAGE, seed=1, epoch=0), strict=True)
    )
    assert not np.array_equal(first[0], epoch_batches(targets, config, STAGE, seed=1, epoch=1)[0])
    assert not np.array_equal(first[0], epoch_batches(targets, config, STAGE, seed=2, epoch=0)[0])


def test_the_class_balanced_sampler_draws_rare_classes_as_often_as_common_ones() -> None:
    targets = np.repeat([0, 1, 2], [900, 90, 10])
    config = TrainConfig(batch_size=100, sampler="class_balanced")
    drawn = targets[
        np.concatenate([np.concatenate(epoch_batches(targets, config, STAGE, seed=1, epoch=e)) for e in range(20)])
    ]
    assert np.allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.02)
