"""Augmentation is keyed by image and epoch, and stays within its limits."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import AugmentConfig
from raregrade.data.augment import augment, keyed_uniform

STILL = AugmentConfig(
    horizontal_flip=False,
    vertical_flip=False,
    rotate_degrees=0.0,
    translate=0.0,
    scale=0.0,
    brightness=0.0,
    contrast=0.0,
)


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000))
def test_draws_are_uniform_in_the_unit_interval_and_repeatable(seed: int, epoch: int) -> None:
    keys = np.arange(50)
    draws = keyed_uniform(seed, epoch, keys, 8)
    assert draws.shape == (50, 8)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.array_equal(draws, keyed_uniform(seed, epoch, keys, 8))


def test_draws_look_independent_of_image_epoch_and_position() -> None:
    draws = keyed_uniform(35, 0, np.arange(20_000), 4)
    assert np.allclose(draws.mean(axis=0), 0.5, atol=0.01)
    assert np.allclose(draws.var(axis=0), 1 / 12, atol=0.003)
    neighbours = np.corrcoef(np.column_stack([draws[:-1], draws[1:], keyed_uniform(35, 1, np.arange(19_999), 4)]).T)
    assert np.abs(neighbours - np.eye(12)).max() < 0.03


def test_an_image_is_changed_alike_whatever_else_is_in_its_batch() -> None:
    batch = images()
    keys = np.array([7, 3, 99, 4, 12, 5])
    together = augment(batch, keys, seed=1, epoch=2, config=AugmentConfig())
    alone = augment(batch[2:3], keys[2:3], seed=1, epoch=2, config=AugmentConfig())
    assert torch.equal(together[2:3], alone)


def test_another_epoch_changes_the_image_otherwise() -> None:
    batch, keys = images(), np.arange(6)
    first = augment(batch, keys, seed=1, epoch=0, config=AugmentConfig())
    assert not torch.equal(first, augment(batch, keys, seed=1, epoch=1, config=AugmentConfig()))


def test_nothing_changes_when_everything_is_switched_off() -> None:
    batch = images()
    assert torch.equal(augment(batch, np.arange(6), seed=1, epoch=0, config=STILL), batch.float())


def test_a_flip_alone_mirrors_about_half_of_the_images_exactly() -> None:
    batch = images(200, 8)
    flipped = augment(batch, np.arange(200), seed=1, epoch=0, config=STILL.model_copy(update={"horizontal_flip": True}))
    mirrored = [torch.equal(a, b.flip(2).float()) for a, b in zip(flipped, batch, strict=True)]
    kept = [torch.equal(a, b.float()) for a, b in zip(flipped, batch, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 60 < sum(mirrored) < 140


def test_flips_by_resampling_equal_flips_by_copying() -> None:
    batch = images(32, 8)
    both = {"horizontal_flip": True, "vertical_flip": True}
    copied = augment(batch, np.arange(32), seed=1, epoch=0, config=STILL.model_copy(update=both))
    sampled = augment(batch, np.arange(32), seed=1, epoch=0, config=STILL.model_copy(update=both | {"scale": 1e-7}))
    assert torch.allclose(copied, sampled, atol=0.01)


def test_pixel_values_stay_between_0_and_255() -> None:
    strong = AugmentConfig(brightness=1.0, contrast=0.9, rotate_degrees=180.0, scale=0.5, translate=0.5)
    changed = augment(images(), np.arange(6), seed=3, epoch=9, config=strong)
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_brightness_keeps_differences_between_pixels() -> None:
    batch = torch.full((4, 1, 4, 4), 120, dtype=torch.uint8)
    changed = augment(batch, np.arange(4), seed=3, epoch=0, config=STILL.model_copy(update={"brightness": 0.1}))
    assert torch.allclose(changed, changed[:, :, :1, :1].expand_as(changed))
    assert (changed - 120).abs().max() <= 25.5
    assert changed[:, 0, 0, 0].unique().numel() == 4
