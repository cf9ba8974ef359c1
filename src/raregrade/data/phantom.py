"""The phantom: a seeded generator of synthetic medical-looking images with known truth.

It decides which patient has which label and writes the files; ``phantom_drawing`` draws the pictures. The phantom
is a test instrument, made to exercise losses, statistics and explanations where the truth is known. It is never
evidence about a disease, nor about how a loss does on real images.

Three flavours, each with patients of several images that share anatomy, texture and exposure:

- ``ordinal``: chest-like images whose opacities grow with a continuous severity, cut into four grades. Severity
  varies between a patient's images, and ``label_noise`` moves a grade to a neighbouring one.
- ``imbalanced``: skin-like images with six patterns from 60 % to 1.5 %; each rare pattern looks like a common one.
  ``label_noise`` confuses the two of a pair, in numbers that leave the class counts as they are in expectation.
- ``hierarchical``: chest-like images with findings under findings; an ancestor is present when a descendant is.
  ``label_noise`` misses a finding that is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from raregrade.atomic import atomic_folder
from raregrade.config import PhantomConfig
from raregrade.data import phantom_drawing as drawing
from raregrade.data.store import check_replaceable
from raregrade.labels import LabelSpace

VERSION = 1
TABLE_FILE = "labels.csv"
INFO_FILE = "phantom.json"
PATIENT_COLUMN = "patient_id"

GRADE_SHARES = (0.50, 0.27, 0.15, 0.08)
PATTERN_SHARES = (0.60, 0.20, 0.10, 0.055, 0.03, 0.015)
LOOK_ALIKE = {
    "uniform": "rimmed",
    "rimmed": "uniform",
    "globular": "clustered",
    "clustered": "globular",
    "reticular": "starburst",
    "starburst": "reticular",
}
# A label that is drawn, and how often it is there; the others of the hierarchy follow from these.
FINDING_SHARES = {"nodule": 0.14, "consolidation": 0.18, "edema": 0.12, "effusion": 0.16, "thickening": 0.08}
FINDING_PARENTS = {
    "nodule": ("opacity",),
    "consolidation": ("opacity",),
    "edema": ("opacity", "fluid"),
    "effusion": ("fluid", "pleural"),
    "thickening": ("pleural",),
}
PHANTOM_LABELS: dict[str, LabelSpace] = {
    "ordinal": LabelSpace("ordinal", ("none", "mild", "moderate", "severe")),
    "imbalanced": LabelSpace("multiclass", tuple(drawing.SKIN_PATTERNS)),
    "hierarchical": LabelSpace(
        "multilabel",
        ("abnormal", "opacity", "fluid", "pleural", "nodule", "consolidation", "edema", "effusion"),
        (
            ("abnormal", "opacity"),
            ("abnormal", "fluid"),
            ("abnormal", "pleural"),
            ("opacity", "nodule"),
            ("opacity", "consolidation"),
            ("opacity", "edema"),
            ("fluid", "edema"),
            ("fluid", "effusion"),
            ("pleural", "effusion"),
        ),
    ),
}
LABEL_COLUMN = {"ordinal": "grade", "multiclass": "class"}  # by task; multilabel: one column a class
_STREAM = {"ordinal": 0, "imbalanced": 1, "hierarchical": 2}

# Every class lies in at least this many patients, so that it can be dealt to train, val and test.
_LEAST_PATIENTS = 3
_SAME_PATIENT = 0.7  # correlation of severity, or probability of the same pattern, within a patient
_FAINT_FROM = 0.35  # severity above which there is something to see; the mildest of it still counts as "none"


@dataclass(frozen=True)
class Case:
    """One image to draw: what is in it (``severity``, ``clean``) and what the table says (``labels``)."""

    patient: int
    image: int
    severity: float
    clean: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def image_id(self) -> str:
        return f"p{self.patient:05d}_{self.image}"


def draw_phantom(config: PhantomConfig, seed: int, out: Path) -> None:
    """Draw a dataset into folder ``out``, which appears complete or not at all.

    Writes images/<id>.png (8-bit grey, image_size²), masks/<id>.png (0 or 255, all lesions of the image),
    labels.csv (filename, patient_id, grade | class | one 0/1 column a finding, then the truth behind them) and
    phantom.json (parameters, version, label space). The same ``config`` and ``seed`` give the same files.

    Raises:
        DataError: ``out`` is a folder of something else.
    """
    check_replaceable(out, INFO_FILE)
    with atomic_folder(out) as folder:
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        cases = draw_cases(config, seed)
        for patient in range(config.patients):
            _draw_patient(config, seed, patient, cases[patient], folder)
        label_table(config.flavour, cases).to_csv(folder / TABLE_FILE, index=False, lineterminator="\n")
        info = {
            "version": VERSION,
            "seed": seed,
            "parameters": config.model_dump(mode="json"),
            "label_space": PHANTOM_LABELS[config.flavour].to_json(),
        }
        (folder / INFO_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _draw_patient(config: PhantomConfig, seed: int, number: int, cases: Sequence[Case], folder: Path) -> None:
    rng = np.random.default_rng([seed, _STREAM[config.flavour], 1, number])
    patient = drawing.draw_patient(rng)
    for case in cases:
        pixels, mask = _draw_case(config, case, patient, rng)
        Image.fromarray(pixels).save(folder / "images" / f"{case.image_id}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{case.image_id}.png")


def _draw_case(
    config: PhantomConfig, case: Case, patient: drawing.Patient, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], drawing.Mask]:
    view = drawing.draw_view(patient, config.image_size, rng)
    if config.flavour == "imbalanced":
        grey, mask = drawing.skin_lesion(case.clean[0], view, config.contrast, rng)
        return drawing.expose(drawing.skin(patient, view) + grey, patient, rng), mask
    image, lungs = drawing.chest(patient, view)
    if config.flavour == "ordinal":
        burden = max(0.0, (case.severity - _FAINT_FROM) / (1 - _FAINT_FROM))
        grey, mask = drawing.opacities(patient, view, lungs, rng, burden=burden, contrast=config.contrast)
        return drawing.expose(image + grey, patient, rng), mask
    mask = np.zeros_like(lungs, dtype=bool)
    for finding in case.clean:
        shape = getattr(drawing, finding)(patient, view, lungs, rng)
        image = image + config.contrast * rng.uniform(0.08, 0.24) * shape
        mask |= shape > 0.4
    return drawing.expose(image, patient, rng), mask


def draw_cases(config: PhantomConfig, seed: int) -> list[list[Case]]:
    """The images of each patient and their labels; no picture is drawn yet."""
    rng = np.random.default_rng([seed, _STREAM[config.flavour], 0])
    images = rng.integers(1, config.max_images_per_patient + 1, config.patients)
    make = {"ordinal": _ordinal_cases, "imbalanced": _imbalanced_cases, "hierarchical": _hierarchical_cases}
    return make[config.flavour](images, config.label_noise, rng)


def _ordinal_cases(images: npt.NDArray[np.int64], noise: float, rng: np.random.Generator) -> list[list[Case]]:
    grades = PHANTOM_LABELS["ordinal"].classes
    edges = np.concatenate([[0.0], np.cumsum(GRADE_SHARES)])
    first = _quota(GRADE_SHARES, len(images), rng)
    kept = _first_patients_of_each_class(first)
    normal = NormalDist()
    cases: list[list[Case]] = []
    for patient, count in enumerate(images):
        low, high = edges[first[patient]], min(edges[first[patient] + 1], 1.0)
        severities = [rng.uniform(low, high)]
        z = normal.inv_cdf(min(max(severities[0], 1e-6), 1 - 1e-6))
        for _ in range(count - 1):  # a Gaussian copula keeps the shares of the grades
            severities.append(normal.cdf(_SAME_PATIENT * z + np.sqrt(1 - _SAME_PATIENT**2) * rng.normal()))
        row = []
        for image, severity in enumerate(severities):
            clean = int(np.clip(np.searchsorted(edges, severity, side="right") - 1, 0, len(grades) - 1))
            noisy = clean if image == 0 and patient in kept else _neighbour(clean, len(grades), noise, rng)
            row.append(Case(patient, image, float(severity), (grades[clean],), (grades[noisy],)))
        cases.append(row)
    return cases


def _neighbour(grade: int, grades: int, probability: float, rng: np.random.Generator) -> int:
    """``grade``, or with ``probability`` one of its neighbours."""
    step = 1 if rng.random() < 0.5 else -1
    if rng.random() >= probability:
        return grade
    return grade + step if 0 <= grade + step < grades else grade - step


def _imbalanced_cases(images: npt.NDArray[np.int64], noise: float, rng: np.random.Generator) -> list[list[Case]]:
    patterns = PHANTOM_LABELS["imbalanced"].classes
    share = dict(zip(patterns, PATTERN_SHARES, strict=True))
    first = _quota(PATTERN_SHARES, len(images), rng)
    kept = _first_patients_of_each_class(first)
    cases: list[list[Case]] = []
    for patient, count in enumerate(images):
        row = []
        for image in range(count):
            same = image == 0 or rng.random() < _SAME_PATIENT
            clean = patterns[first[patient]] if same else str(rng.choice(patterns, p=PATTERN_SHARES))
            other = LOOK_ALIKE[clean]
            confused = rng.random() < noise * min(1.0, share[other] / share[clean])
            label = other if confused and not (image == 0 and patient in kept) else clean
            row.append(Case(patient, image, 1.0, (clean,), (label,)))
        cases.append(row)
    return cases


def _hierarchical_cases(images: npt.NDArray[np.int64], noise: float, rng: np.random.Generator) -> list[list[Case]]:
    findings = tuple(FINDING_SHARES)
    shares = np.array(list(FINDING_SHARES.values()))
    # The first patients' first images have one finding each, in turn, so that each finding lies in several patients.
    sure = {p: findings[i % len(findings)] for i, p in enumerate(rng.permutation(len(images))[: 3 * len(findings)])}
    cases: list[list[Case]] = []
    for patient, count in enumerate(images):
        prone = rng.beta(_SAME_PATIENT * shares * 3, (1 - shares * _SAME_PATIENT) * 3)  # the patient's own rates
        rates = (1 - _SAME_PATIENT) * shares + prone
        row = []
        for image in range(count):
            present = rng.random(len(findings)) < rates
            missed = rng.random(len(findings)) < noise
            if image == 0 and patient in sure:
                present[findings.index(sure[patient])] = True
                missed[findings.index(sure[patient])] = False
            clean = tuple(f for f, there in zip(findings, present, strict=True) if there)
            seen = [f for f, there in zip(findings, present & ~missed, strict=True) if there]
            row.append(Case(patient, image, float(present.sum()), clean, tuple(_with_ancestors(seen))))
        cases.append(row)
    return cases


def _with_ancestors(findings: Sequence[str]) -> list[str]:
    """All labels that are 1 when ``findings`` are present, in the order of the label space."""
    present = set(findings)
    for finding in findings:
        present.update(FINDING_PARENTS[finding], ("abnormal",))
    return [c for c in PHANTOM_LABELS["hierarchical"].classes if c in present]


def _quota(shares: Sequence[float], patients: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Class of each patient's first image: ``shares`` of the patients, but at least three patients a class."""
    counts = np.maximum(np.round(np.array(shares) * patients).astype(np.int64), _LEAST_PATIENTS)
    counts[0] += patients - counts.sum()
    return rng.permutation(np.repeat(np.arange(len(shares)), counts))


def _first_patients_of_each_class(classes: npt.NDArray[np.int64]) -> set[int]:
    """Patients whose first label is kept as it is, so that noise cannot empty a class."""
    return {int(p) for k in np.unique(classes) for p in np.flatnonzero(classes == k)[:_LEAST_PATIENTS]}


def label_table(flavour: str, cases: Sequence[Sequence[Case]]) -> pd.DataFrame:
    """labels.csv: one row per image."""
    return pd.DataFrame([_table_row(flavour, case) for row in cases for case in row])


def _table_row(flavour: str, case: Case) -> dict[str, object]:
    row: dict[str, object] = {
        "filename": f"images/{case.image_id}.png",
        PATIENT_COLUMN: f"p{case.patient:05d}",
    }
    if flavour == "hierarchical":
        classes = PHANTOM_LABELS[flavour].classes
        clean = _with_ancestors(case.clean)
        row |= {c: int(c in case.labels) for c in classes}
        return row | {f"clean_{c}": int(c in clean) for c in classes} | {"thickening": int("thickening" in case.clean)}
    column = LABEL_COLUMN[PHANTOM_LABELS[flavour].task]
    row |= {column: case.labels[0], f"clean_{column}": case.clean[0]}
    return row | {"severity": round(case.severity, 6)} if flavour == "ordinal" else row
