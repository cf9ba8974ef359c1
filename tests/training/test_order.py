"""Batches are a function of seed and epoch, and hold every image at most once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import TrainConfig
from raregrade.errors import UserError
from raregrade.losses import Stage
from raregrade.training.order import epoch_batches

STAGE = Stage("train")
PK = Stage("representation", sampler="pk", images_per_class=4)


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


@pytest.mark.parametrize("batch_size", [8, 16, 32, 64])
@pytest.mark.parametrize("classes", [2, 4, 6, 7])
def test_an_epoch_of_p_by_k_batches_has_the_updates_and_images_of_any_other(batch_size: int, classes: int) -> None:
    targets = np.arange(203) % classes
    config = TrainConfig(batch_size=batch_size)
    shuffled = epoch_batches(targets, config, STAGE, seed=1, epoch=0)
    paired = epoch_batches(targets, config, PK, seed=1, epoch=0)
    assert [len(batch) for batch in paired] == [len(batch) for batch in shuffled] == [batch_size] * (203 // batch_size)


def test_with_as_many_images_of_a_class_as_half_a_batch_it_holds_two_classes() -> None:
    targets, stage = np.arange(200) % 4, Stage("representation", sampler="pk", images_per_class=16)
    for batch in epoch_batches(targets, TrainConfig(batch_size=32), stage, seed=1, epoch=0):
        assert sorted(np.bincount(targets[batch], minlength=4).tolist()) == [0, 0, 16, 16]


def test_each_forward_pass_of_a_p_by_k_batch_holds_pairs_of_its_own() -> None:
    targets, config = np.arange(200) % 4, TrainConfig(batch_size=32, accumulate=2)
    batches = epoch_batches(targets, config, PK, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [32] * 6
    for batch in batches:
        for part in np.array_split(batch, 2):
            assert np.bincount(targets[part]).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("stage", [STAGE, PK], ids=["shuffle", "pk"])
def test_a_split_smaller_than_a_batch_is_one_batch_that_divides_into_its_parts(stage: Stage) -> None:
    config = TrainConfig(batch_size=64, accumulate=2)
    (batch,) = epoch_batches(np.arange(30) % 3, config, stage, seed=1, epoch=0, processes=4)
    assert len(batch) == 24


def test_fewer_images_than_parts_are_refused_with_what_divides_them() -> None:
    config = TrainConfig(batch_size=16, accumulate=4)
    with pytest.raises(UserError, match=r"has 7 images, fewer than the 8 equal parts .*accumulate = 4 and 2 processes"):
        epoch_batches(np.zeros(7, dtype=np.int64), config, STAGE, seed=1, epoch=0, processes=2)


@pytest.mark.parametrize("stage", [STAGE, Stage("classifier", sampler="class_balanced"), PK], ids=lambda s: s.sampler)
def test_one_image_more_than_whole_batches_waits_for_another_epoch(stage: Stage) -> None:
    targets = np.arange(33) % 4
    assert [len(b) for b in epoch_batches(targets, TrainConfig(batch_size=16), stage, seed=1, epoch=0)] == [16, 16]
