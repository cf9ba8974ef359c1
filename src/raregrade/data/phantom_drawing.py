"""Pictures of the phantom: a patient's anatomy, one view of it, and lesions of given kind and strength.

Grey values are floats, about 0 (black) to 1 (white), until ``expose``; coordinates x (right) and y (down) run
from -1 to 1 over the image. Which patient has which label is decided in ``phantom``, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]  # [S, S]
Mask = npt.NDArray[np.bool_]  # [S, S]
Point = tuple[float, float]  # x, y

LUNGS = (-0.43, 0.43)  # x of the lungs' centres


@dataclass(frozen=True)
class Patient:
    """What all images of a patient share: build, texture, scanner. Images split one by one would leak it."""

    width: float
    height: float
    tilt: float
    exposure: float
    rib_frequency: float
    rib_phase: float
    rib_strength: float
    noise: float
    coarse: Field  # [5, 5]
    fine: Field  # [14, 14]
    vessels: Field  # [m, 4]: x, y, radius, strength


def draw_patient(rng: np.random.Generator) -> Patient:
    m = int(rng.integers(3, 8))
    lungs = rng.choice(LUNGS, m)
    vessels = np.stack(
        [lungs + rng.normal(0, 0.15, m), rng.normal(0, 0.35, m), rng.uniform(0.04, 0.1, m), rng.uniform(0.05, 0.2, m)],
        axis=1,
    )
    return Patient(
        width=rng.uniform(0.26, 0.36),
        height=rng.uniform(0.55, 0.8),
        tilt=rng.normal(0, 0.05),
        exposure=rng.normal(0, 0.06),
        rib_frequency=rng.uniform(9, 15),
        rib_phase=rng.uniform(0, 2 * np.pi),
        rib_strength=rng.uniform(0.02, 0.07),
        noise=rng.uniform(0.03, 0.07),
        coarse=rng.normal(0, 0.06, (5, 5)),
        fine=rng.normal(0, 0.05, (14, 14)),
        vessels=vessels,
    )


@dataclass(frozen=True)
class View:
    """One exposure of a patient: pixel coordinates in the patient's frame, and the exposure."""

    x: Field
    y: Field
    exposure: float


def draw_view(patient: Patient, size: int, rng: np.random.Generator) -> View:
    """Position the patient: shift, turn and scale of this exposure on top of the patient's own tilt."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    angle = patient.tilt + rng.normal(0, 0.04)
    scale = rng.uniform(0.93, 1.07)
    x, y = x - rng.normal(0, 0.04), y - rng.normal(0, 0.04)
    turned = (x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))
    return View(turned[0] / scale, turned[1] / scale, patient.exposure + rng.normal(0, 0.03))


def chest(patient: Patient, view: View) -> tuple[Field, Field]:
    """A radiograph without lesions, and how much each pixel is lung (0 to 1)."""
    lungs: Field = sum(
        (soft_ellipse(view, (cx, 0.0), (patient.width, patient.height), 0.0, 0.12) for cx in LUNGS),
        np.zeros_like(view.x),
    ).clip(0, 1)
    heart = soft_ellipse(view, (0.16, 0.3), (0.3, 0.34), 0.5, 0.25)
    spine = np.exp(-((view.x / 0.13) ** 2))
    ribs = np.sin(patient.rib_frequency * (view.y + 0.5 * view.x**2) + patient.rib_phase)
    image = 0.62 - 0.34 * lungs + 0.14 * heart + 0.12 * spine + patient.rib_strength * ribs * (0.3 + 0.7 * lungs)
    for x, y, radius, strength in patient.vessels:
        image = image + strength * lungs * soft_ellipse(view, (x, y), (radius, radius * 2), x * 3, 0.5)
    return image + texture(patient, view) + view.exposure, lungs


def skin(patient: Patient, view: View) -> Field:
    """A skin surface without lesion: texture, shading, a few fine hairs."""
    shading = 0.06 * (view.x * np.cos(patient.rib_phase) + view.y * np.sin(patient.rib_phase))
    image: Field = 0.68 + shading + texture(patient, view) + view.exposure
    for x, y, radius, strength in patient.vessels[:3]:
        across = (view.x - x) * np.cos(7 * y) + (view.y - y) * np.sin(7 * y) + radius * view.x**2
        image = image - 1.5 * strength * np.exp(-((across / 0.03) ** 2))
    return image


def texture(patient: Patient, view: View) -> Field:
    """The patient's own texture, moved with the anatomy."""
    return sample(patient.coarse, view.x, view.y) + sample(patient.fine, view.x, view.y)


def sample(grid: Field, x: Field, y: Field) -> Field:
    """Bilinear interpolation of ``grid`` [g, g], spread over -1.2 to 1.2, at ``x``, ``y`` (clamped at the rim)."""
    last = len(grid) - 1
    u, v = ((np.clip(c / 1.2, -1, 1) + 1) / 2 * last for c in (x, y))
    i, j = (np.minimum(c.astype(np.int64), last - 1) for c in (u, v))
    fu, fv = u - i, v - j
    top = grid[j, i] * (1 - fu) + grid[j, i + 1] * fu
    bottom = grid[j + 1, i] * (1 - fu) + grid[j + 1, i + 1] * fu
    return np.asarray(top * (1 - fv) + bottom * fv)


def soft_ellipse(view: View, centre: Point, radii: Point, angle: float, softness: float) -> Field:
    """1 inside, 0 outside, 0.5 on the ellipse; ``softness`` is the width of the edge as a part of the radius."""
    dx, dy = view.x - centre[0], view.y - centre[1]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
    return np.asarray(1 / (1 + np.exp(np.clip((np.sqrt(u**2 + v**2) - 1) / (softness / 4), -40, 40))))


def opacities(
    patient: Patient, view: View, lungs: Field, rng: np.random.Generator, *, burden: float, contrast: float
) -> tuple[Field, Mask]:
    """Patchy lung opacities whose number, size and density grow with ``burden`` (0 to 1): grey to add, and mask."""
    grey, mask = np.zeros_like(view.x), np.zeros_like(view.x, dtype=bool)
    if burden <= 0:
        return grey, mask
    for _ in range(1 + rng.poisson(4 * burden)):
        radius = (0.08 + 0.14 * burden) * rng.uniform(0.7, 1.3)
        shape = patch(patient, view, radius, rng) * lungs
        strength = contrast * (0.065 + 0.23 * burden) * rng.uniform(0.7, 1.3)
        grey += strength * shape * (1 - grey.clip(0, 0.5))
        mask |= shape > 0.5
    return grey, mask


def patch(patient: Patient, view: View, radius: float, rng: np.random.Generator) -> Field:
    """A soft irregular patch of about ``radius`` somewhere in a lung (0 to 1)."""
    cx = rng.choice(LUNGS) + rng.uniform(-0.6, 0.6) * patient.width
    cy = rng.uniform(-0.65, 0.75) * patient.height
    ragged = sample(rng.normal(0, 0.25, (12, 12)), view.x, view.y)
    shape = soft_ellipse(view, (cx, cy), (radius, radius * rng.uniform(0.7, 1.4)), rng.uniform(0, np.pi), 0.6)
    return np.asarray((shape * (1 + ragged)).clip(0, 1))


def nodule(patient: Patient, view: View, lungs: Field, rng: np.random.Generator) -> Field:
    """A small round lesion in a lung (0 to 1)."""
    cx = rng.choice(LUNGS) + rng.uniform(-0.5, 0.5) * patient.width
    cy = rng.uniform(-0.6, 0.6) * patient.height
    radius = rng.uniform(0.09, 0.15)
    return soft_ellipse(view, (cx, cy), (radius, radius), 0.0, 0.3) * (lungs > 0.2)


def consolidation(patient: Patient, view: View, lungs: Field, rng: np.random.Generator) -> Field:
    """A large irregular patch in a lung (0 to 1)."""
    return patch(patient, view, rng.uniform(0.18, 0.28), rng) * lungs


def edema(patient: Patient, view: View, lungs: Field, rng: np.random.Generator) -> Field:
    """Haze on both sides, dense towards the middle, with a fine network (0 to 1)."""
    haze = np.exp(-((np.abs(view.x) - 0.15).clip(0) ** 2) / 0.06 - (view.y - 0.05) ** 2 / (0.4 * patient.height))
    network = 0.5 + 0.5 * np.sin(rng.uniform(20, 26) * view.x + rng.uniform(0, 6)) * np.sin(24 * view.y)
    return np.asarray(lungs * haze * (0.7 + 0.3 * network))


def effusion(patient: Patient, view: View, lungs: Field, rng: np.random.Generator) -> Field:
    """Fluid at the base of one lung with a curved upper edge (0 to 1)."""
    side = rng.choice([-1.0, 1.0])
    level = patient.height * rng.uniform(0.35, 0.65) - 0.5 * (np.abs(view.x) - 0.4).clip(0)
    filled = 1 / (1 + np.exp(np.clip(-(view.y - level) / 0.04, -40, 40)))
    return np.asarray(lungs * filled * (side * view.x > 0))


def thickening(patient: Patient, view: View, lungs: Field, rng: np.random.Generator) -> Field:
    """A bright rim along the outer edge of one lung (0 to 1)."""
    side = rng.choice([-1.0, 1.0])
    width = patient.width * rng.uniform(0.72, 0.82)
    inner = soft_ellipse(view, (side * (LUNGS[1] - 0.04), 0.0), (width, patient.height * 0.9), 0.0, 0.1)
    outside = side * view.x > LUNGS[1]
    return np.asarray((lungs * (1 - inner) * outside).clip(0, 1))


def skin_lesion(pattern: str, view: View, contrast: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    """A pigmented lesion with one of ``SKIN_PATTERNS``: grey to add (negative), and its mask."""
    cx, cy = rng.normal(0, 0.12, 2)
    rx, ry = rng.uniform(0.4, 0.62, 2)
    angle = rng.uniform(0, np.pi)
    shape = soft_ellipse(view, (cx, cy), (rx, ry), angle, rng.uniform(0.15, 0.4))
    ragged = 1 + sample(rng.normal(0, 0.3, (9, 9)), view.x, view.y)
    u, v = (view.x - cx) / rx, (view.y - cy) / ry
    marks = SKIN_PATTERNS[pattern](u, v, rng)
    depth = rng.uniform(0.16, 0.3)
    grey = -depth * shape * ragged - contrast * rng.uniform(0.1, 0.22) * marks * shape
    return grey, shape > 0.5


def _uniform(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return rng.uniform(0, 0.4) * sample(rng.normal(0, 1, (8, 8)), u, v)


def _rimmed(u: Field, v: Field, rng: np.random.Generator) -> Field:
    radius = np.sqrt(u**2 + v**2)
    return np.asarray(np.exp(-(((radius - rng.uniform(0.75, 0.88)) / 0.13) ** 2)))


def _globular(u: Field, v: Field, rng: np.random.Generator) -> Field:
    frequency, (a, b) = rng.uniform(9, 12), rng.uniform(0, 6, 2)
    return np.asarray((np.sin(frequency * u + a) * np.sin(frequency * v + b)).clip(0) * 1.6)


def _clustered(u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Globules on one side only."""
    turn = rng.uniform(0, 2 * np.pi)
    side = 1 / (1 + np.exp(np.clip(-(u * np.cos(turn) + v * np.sin(turn)) / 0.1, -40, 40)))
    return np.asarray(1.5 * side * _globular(u, v, rng))


def _reticular(u: Field, v: Field, rng: np.random.Generator) -> Field:
    frequency, (a, b) = rng.uniform(8, 11), rng.uniform(0, 6, 2)
    lines = np.maximum(np.sin(frequency * (u + v) + a), np.sin(frequency * (u - v) + b))
    return np.asarray((lines.clip(0.3) - 0.3) * 1.2)


def _starburst(u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Streaks that run outwards at the rim."""
    radius, turn = np.sqrt(u**2 + v**2), np.arctan2(v, u)
    spokes = np.cos(rng.integers(9, 13) * turn + rng.uniform(0, 6)).clip(0)
    return np.asarray(1.6 * spokes * (radius.clip(0.3, 0.9) - 0.3) / 0.6)


SKIN_PATTERNS = {
    "uniform": _uniform,
    "globular": _globular,
    "reticular": _reticular,
    "clustered": _clustered,
    "rimmed": _rimmed,
    "starburst": _starburst,
}


def expose(image: Field, patient: Patient, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add this exposure's noise, grain and pixel noise, and quantise to uint8 [S, S]."""
    size = len(image)
    half = -(-size // 2)
    grain = np.kron(rng.normal(0, 1, (half, half)), np.ones((2, 2)))[:size, :size]
    noisy = image + patient.noise * (0.6 * grain + 0.8 * rng.normal(0, 1, image.shape))
    return (noisy.clip(0, 1) * 255 + 0.5).astype(np.uint8)
