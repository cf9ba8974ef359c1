"""The pictures: each finding lies where it should, and interpolation agrees with SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from raregrade.data import phantom_drawing as drawing
from raregrade.data.phantom import FINDING_SHARES


@pytest.fixture
def scene() -> tuple[drawing.Patient, drawing.View, np.ndarray]:
    rng = np.random.default_rng(1)
    patient = drawing.draw_patient(rng)
    view = drawing.draw_view(patient, 64, rng)
    return patient, view, drawing.chest(patient, view)[1]


def test_texture_is_interpolated_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    grid, (x, y) = rng.normal(size=(7, 7)), rng.uniform(-1.5, 1.5, (2, 20, 20))
    index = [(np.clip(c / 1.2, -1, 1) + 1) / 2 * 6 for c in (y, x)]
    assert np.allclose(drawing.sample(grid, x, y), map_coordinates(grid, index, order=1, mode="nearest"))


def test_an_ellipse_has_its_area(scene: tuple[drawing.Patient, drawing.View, np.ndarray]) -> None:
    axis = (np.arange(200) + 0.5) / 100 - 1
    view = drawing.View(*np.meshgrid(axis, axis), exposure=0.0)
    inside = drawing.soft_ellipse(view, (0.1, -0.2), (0.3, 0.5), 0.4, 0.2) > 0.5
    assert np.isclose(inside.mean() * 4, np.pi * 0.3 * 0.5, rtol=0.01)


@pytest.mark.parametrize("finding", FINDING_SHARES)
def test_a_finding_lies_in_the_lungs_and_can_be_seen(
    scene: tuple[drawing.Patient, drawing.View, np.ndarray], finding: str
) -> None:
    patient, view, lungs = scene
    for seed in range(10):
        shape = getattr(drawing, finding)(patient, view, lungs, np.random.default_rng(seed))
        assert shape.shape == (64, 64)
        assert 0 <= shape.min() <= shape.max() <= 1.0 + 1e-9
        assert shape.max() > 0.4
        assert shape[lungs < 0.01].max(initial=0) <= 0.01


def test_no_burden_is_no_lesion(scene: tuple[drawing.Patient, drawing.View, np.ndarray]) -> None:
    grey, mask = drawing.opacities(*scene, np.random.default_rng(0), burden=0.0, contrast=1.0)
    assert not grey.any()
    assert not mask.any()


def test_the_burden_of_opacities_adds_grey_and_area(
    scene: tuple[drawing.Patient, drawing.View, np.ndarray],
) -> None:
    def mean_grey_and_area(burden: float) -> np.ndarray:
        drawn = [drawing.opacities(*scene, np.random.default_rng(s), burden=burden, contrast=1.0) for s in range(100)]
        return np.array([[g.mean(), m.mean()] for g, m in drawn]).mean(axis=0)

    faint, middle, strong = (mean_grey_and_area(b) for b in (0.1, 0.5, 1.0))
    assert (faint * 2 < middle).all()
    assert (middle * 1.5 < strong).all()


@pytest.mark.parametrize("size", [16, 33, 64])
def test_an_exposure_is_eight_bit_of_any_size(size: int) -> None:
    rng = np.random.default_rng(0)
    patient = drawing.draw_patient(rng)
    image = drawing.expose(drawing.skin(patient, drawing.draw_view(patient, size, rng)), patient, rng)
    assert (image.shape, image.dtype) == ((size, size), np.uint8)
    assert image.std() > 5
