"""Decoding: geometry, colour and depth, against numpy on real files of each format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raregrade.data.sources.decode import array_image, load_image, load_mask
from raregrade.errors import DataError

GRADIENT = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_grey_image_of_the_right_size_keeps_its_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GRADIENT).save(path)
    grey = load_image(path, 32, "grey")
    assert grey.shape == (32, 32, 1)
    assert np.array_equal(grey[..., 0], GRADIENT)
    rgb = load_image(path, 32, "rgb")
    assert rgb.shape == (32, 32, 3)
    assert all(np.array_equal(rgb[..., c], GRADIENT) for c in range(3))


def test_a_jpeg_keeps_its_pixels_within_the_loss_of_the_format(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "a.jpg", 32, "grey")[..., 0].astype(int) - GRADIENT).max() <= 8


def test_the_centre_is_cut_out_and_the_aspect_ratio_stays(tmp_path: Path) -> None:
    """A wide image with a square in its middle: the square stays a square; the far left and right are cut off."""
    wide = np.zeros((40, 80), np.uint8)
    wide[10:30, 30:50] = 255
    wide[:, :5] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", 20, "grey")[..., 0] > 127
    expected = np.zeros((20, 20), bool)
    expected[5:15, 5:15] = True
    assert np.array_equal(image, expected)


def test_shrinking_averages_instead_of_picking_pixels(tmp_path: Path) -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).save(tmp_path / "a.png")
    shrunk = load_image(tmp_path / "a.png", 16, "grey")[2:-2, 2:-2]
    assert np.abs(shrunk.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("highest", [1023, 4095, 65535])
def test_sixteen_bits_are_scaled_to_eight_whatever_bits_are_in_use(tmp_path: Path, highest: int) -> None:
    deep = np.linspace(0, highest, 32 * 32).reshape(32, 32).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        image = load_image(tmp_path / name, 32, "grey")[..., 0]
        assert np.abs(image.astype(float) - deep / highest * 255).max() <= 1


def test_floating_point_pixels_are_scaled_and_nan_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-1, 1, 1024, dtype=np.float32).reshape(32, 32)).save(tmp_path / "a.tif")
    assert np.abs(load_image(tmp_path / "a.tif", 32, "grey")[..., 0].astype(int) - GRADIENT).max() <= 1
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match=r"nan\.tif.*NaN"):
        load_image(tmp_path / "nan.tif", 4, "grey")


def test_a_flat_sixteen_bit_image_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 700, np.uint16)).save(tmp_path / "a.png")
    assert not load_image(tmp_path / "a.png", 8, "grey").any()


def test_palette_transparency_and_black_and_white_become_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, 128
    Image.fromarray(red).save(tmp_path / "alpha.png")
    Image.fromarray(red[..., :3]).quantize(4).save(tmp_path / "palette.png")
    Image.fromarray(np.ones((8, 8), bool)).save(tmp_path / "bilevel.png")
    assert load_image(tmp_path / "alpha.png", 8, "rgb")[0, 0].tolist() == [255, 0, 0]
    assert load_image(tmp_path / "palette.png", 8, "rgb")[0, 0].tolist() == [255, 0, 0]
    assert load_image(tmp_path / "bilevel.png", 8, "rgb")[0, 0].tolist() == [255, 255, 255]


def test_the_rotation_noted_by_the_camera_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(GRADIENT)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter: show it turned clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png", 32, "grey")[..., 0], np.rot90(GRADIENT, -1))


def test_a_large_jpeg_is_decoded_as_well_as_by_resizing_the_whole(tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :768]
    smooth = (127 + 100 * np.sin(x / 60) * np.cos(y / 45)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    jpeg, png = (load_image(tmp_path / n, 48, "grey").astype(int) for n in ("a.jpg", "a.png"))
    assert np.abs(jpeg - png).max() <= 4


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "bad.png"
    if content == "half":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"bad\.png: not a readable image"):
        load_image(path, 16, "rgb")


def test_arrays_go_the_same_way_as_files(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    assert np.array_equal(array_image(colour, 20, "rgb"), load_image(tmp_path / "a.png", 20, "rgb"))
    assert np.array_equal(array_image(GRADIENT[..., None], 32, "grey")[..., 0], GRADIENT)


def test_a_mask_is_cut_as_its_image_and_stays_binary(tmp_path: Path) -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[10:30, 30:50] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    expected = np.zeros((20, 20), bool)
    expected[5:15, 5:15] = True
    loaded = load_mask(tmp_path / "m.png", 20)
    assert loaded.dtype == np.bool_
    assert np.array_equal(loaded, expected)
    (tmp_path / "m.png").write_bytes(b"")
    with pytest.raises(DataError, match="not a readable mask"):
        load_mask(tmp_path / "m.png", 20)
