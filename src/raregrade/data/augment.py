"""Random changes of training images, applied to a whole batch on its device.

Every random number is a function of (seed, epoch, image, which number): the same image in the same
epoch is changed alike whatever the batch size, the number of workers or processes, and after a resume.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from raregrade.config import AugmentConfig

_DRAWS = 8  # random numbers an image and epoch; a new kind of change takes the next free one


def keyed_uniform(seed: int, epoch: int, images: npt.NDArray[np.int64], draws: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape [B, draws], each a hash (splitmix64) of seed, epoch, image and position."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed], dtype=np.uint64) + golden)
        key = _mix(key ^ _mix(np.array([epoch], dtype=np.uint64) + np.uint64(0x632BE59BD9B4E019)))
        rows = _mix(key ^ _mix(images.astype(np.uint64)))
        grid = _mix(rows[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * golden)
    uniform: npt.NDArray[np.float64] = (grid >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return uniform


def augment(images: Tensor, keys: npt.NDArray[np.int64], *, seed: int, epoch: int, config: AugmentConfig) -> Tensor:
    """Change ``images`` at random within the limits of ``config``: ``draws_of_epoch`` and ``apply_draws`` in one.

    Args:
        images: [B, C, H, W], pixel values 0–255, uint8 or float.
        keys: int [B], a number that identifies each image in the dataset.
        seed: the run's seed.
        epoch: the epoch, counted from 0.
        config: which changes, and how strong.

    Returns:
        float32 [B, C, H, W] on the device of ``images``. What a turned or shifted image uncovers repeats its border.
    """
    return apply_draws(images, draws_of_epoch(keys, seed=seed, epoch=epoch).to(images.device), config)


def draws_of_epoch(keys: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Tensor:
    """The random numbers that change the images ``keys`` in an epoch: float32 [B, 8] in [0, 1], on the CPU."""
    return torch.from_numpy(keyed_uniform(seed, epoch, keys, _DRAWS)).float()


def apply_draws(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Change ``images`` [B, C, H, W], pixel values 0–255, by ``draws`` [B, 8] on the same device; see ``augment``."""
    changed = images.float()
    if config.rotate_degrees or config.translate or config.scale:
        changed = _affine(changed, draws, config)
    else:
        changed = _flip(changed, draws, config)
    if config.brightness or config.contrast:
        gain = 1 + config.contrast * (2 * draws[:, 6] - 1)
        shift = 255 * config.brightness * (2 * draws[:, 7] - 1)
        centre = changed.mean(dim=(1, 2, 3), keepdim=True)
        changed = ((changed - centre) * gain.view(-1, 1, 1, 1) + centre + shift.view(-1, 1, 1, 1)).clamp_(0, 255)
    return changed


def _affine(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Flip, turn, scale and shift by one resampling."""
    angle = math.radians(config.rotate_degrees) * (2 * draws[:, 2] - 1)
    zoom = 1 / (1 + config.scale * (2 * draws[:, 3] - 1))
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    flip_x, flip_y = _flip_signs(draws, config)
    shift = 2 * config.translate * (2 * draws[:, 4:6] - 1)  # the grid runs from -1 to 1: half a width is 1
    theta = torch.stack(
        [
            torch.stack([cos * flip_x, -sin * flip_y, shift[:, 0]], dim=1),
            torch.stack([sin * flip_x, cos * flip_y, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _flip(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    flip_x, flip_y = _flip_signs(draws, config)
    images = torch.where((flip_x < 0).view(-1, 1, 1, 1), images.flip(3), images)
    return torch.where((flip_y < 0).view(-1, 1, 1, 1), images.flip(2), images)


def _flip_signs(draws: Tensor, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    ones = torch.ones_like(draws[:, 0])
    flip_x = torch.where(draws[:, 0] < 0.5, -ones, ones) if config.horizontal_flip else ones
    flip_y = torch.where(draws[:, 1] < 0.5, -ones, ones) if config.vertical_flip else ones
    return flip_x, flip_y


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return mixed
