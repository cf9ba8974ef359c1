"""From image files and arrays to uint8 arrays of one shape. Knows nothing of labels or tables.

The shorter side is resized to ``image_size`` with antialiasing, then the centre is cut out, so that the aspect
ratio stays. A mask takes the same way without interpolation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from raregrade.data.sources.base import Mask, Pixels
from raregrade.errors import DataError

_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def load_image(path: Path, image_size: int, color: str) -> Pixels:
    """Decode an image file (PNG, JPEG, BMP, TIFF …) to uint8 [size, size, 1] (``grey``) or [size, size, 3] (``rgb``).

    Grey images of more than 8 bits are scaled linearly from their own darkest and brightest pixel to 0 and 255,
    because the number of bits in use is rarely that of the file. Transparency is dropped; EXIF rotation is applied.

    Raises:
        DataError: the file is missing, cut short, or no image.
    """
    try:
        with Image.open(path) as opened:
            # Lets the JPEG decoder skip detail that the resize would remove; never below twice the target.
            opened.draft(None, (2 * image_size, 2 * image_size))
            turned = ImageOps.exif_transpose(opened)
            return fit(turned, image_size, color)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as err:
        raise DataError(f"{path}: not a readable image ({err})") from err


def load_mask(path: Path, image_size: int) -> Mask:
    """Decode a mask file to bool [size, size]: true where a pixel is not 0. Raises DataError as ``load_image``."""
    try:
        with Image.open(path) as opened:
            mask: Mask = np.asarray(_square(opened.convert("L"), image_size, Image.Resampling.NEAREST)) > 0
            return mask
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as err:
        raise DataError(f"{path}: not a readable mask ({err})") from err


def array_image(pixels: npt.NDArray[Any], image_size: int, color: str) -> Pixels:
    """``load_image`` for uint8 pixels [H, W], [H, W, 1] or [H, W, 3]."""
    return fit(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), image_size, color)


def fit(image: Image.Image, image_size: int, color: str) -> Pixels:
    """Convert, resize and crop; uint8 [size, size, channels]."""
    if image.mode in _DEEP_MODES:
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    image = image.convert("L" if color == "grey" else "RGB")
    pixels = np.asarray(_square(image, image_size, Image.Resampling.BICUBIC))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _eight_bits(pixels: npt.NDArray[Any]) -> Pixels:
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite pixels")
    low, high = values.min(), values.max()
    scale = 255 / (high - low) if high > low else 0.0
    scaled: Pixels = np.round((values - low) * scale).astype(np.uint8)
    return scaled


def _square(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """Resize the shorter side to ``size`` and cut out the centre."""
    if image.size == (size, size):
        return image
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    return image.resize((size, size), resampling, box=(left, top, left + shorter, top + shorter))
