"""The phantom: the same seed draws the same files, and the truth in the table is the truth in the pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raregrade.config import PhantomConfig, load_params
from raregrade.data.phantom import (
    FINDING_SHARES,
    GRADE_SHARES,
    PATTERN_SHARES,
    PHANTOM_LABELS,
    draw_cases,
    draw_phantom,
    label_table,
)
from raregrade.errors import DataError

FLAVOURS = tuple(PHANTOM_LABELS)
SHIPPED = Path(__file__).parents[2] / "params.yaml"


def table_of(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "labels.csv", keep_default_na=False)


def contents(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.*")}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Labels of 2,000 patients, without pictures: for shares and rates."""
    result = {}
    for flavour in FLAVOURS:
        config = PhantomConfig(flavour=flavour, patients=2000, max_images_per_patient=2, label_noise=0.1)  # type: ignore[arg-type]
        result[flavour] = label_table(flavour, draw_cases(config, 5))
    return result


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_same_seed_draws_the_same_files_and_another_seed_others(tmp_path: Path, flavour: str) -> None:
    config = PhantomConfig(flavour=flavour, patients=20, image_size=16)  # type: ignore[arg-type]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_phantom(config, seed, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    different = {k for k, v in contents(tmp_path / "a").items() if contents(tmp_path / "c").get(k, "") != v}
    assert len([k for k in different if k.startswith("images")]) == len(table_of(tmp_path / "a"))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_row_has_an_image_and_a_mask_of_the_size_asked_for(phantoms: dict[str, Path], flavour: str) -> None:
    root = phantoms[flavour]
    table = table_of(root)
    assert table["filename"].is_unique
    assert {p.name for p in (root / "images").iterdir()} == {Path(n).name for n in table["filename"]}
    for name in table["filename"]:
        with Image.open(root / name) as image, Image.open(root / name.replace("images", "masks")) as mask:
            assert (image.mode, image.size, mask.size) == ("L", (24, 24), (24, 24))
            assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_the_description_holds_what_was_asked_for(phantoms: dict[str, Path]) -> None:
    info = json.loads((phantoms["ordinal"] / "phantom.json").read_text())
    assert info["seed"] == 7
    assert info["parameters"]["patients"] == 40
    assert info["label_space"] == PHANTOM_LABELS["ordinal"].to_json()


def test_the_shipped_parameters_read_the_phantom_that_they_draw() -> None:
    params = load_params(SHIPPED)
    assert params.data.label_space() == PHANTOM_LABELS[params.phantom.flavour]


def test_grades_have_their_shares(tables: dict[str, pd.DataFrame]) -> None:
    shares = tables["ordinal"]["clean_grade"].value_counts(normalize=True)
    for grade, share in zip(PHANTOM_LABELS["ordinal"].classes, GRADE_SHARES, strict=True):
        assert np.isclose(shares[grade], share, atol=0.02)


def test_patterns_have_their_shares_and_noise_keeps_them(tables: dict[str, pd.DataFrame]) -> None:
    for column in ("clean_class", "class"):
        shares = tables["imbalanced"][column].value_counts(normalize=True)
        for pattern, share in zip(PHANTOM_LABELS["imbalanced"].classes, PATTERN_SHARES, strict=True):
            assert np.isclose(shares[pattern], share, atol=0.02 if share > 0.1 else 0.01)


def test_findings_have_their_shares(tables: dict[str, pd.DataFrame]) -> None:
    for finding, share in FINDING_SHARES.items():
        column = finding if finding == "thickening" else f"clean_{finding}"
        assert np.isclose(tables["hierarchical"][column].mean(), share, atol=0.03)


def test_label_noise_moves_a_grade_to_a_neighbour_as_often_as_asked(tables: dict[str, pd.DataFrame]) -> None:
    grades = list(PHANTOM_LABELS["ordinal"].classes)
    table = tables["ordinal"]
    moved = table["grade"].map(grades.index) - table["clean_grade"].map(grades.index)
    assert set(moved.abs()) == {0, 1}
    assert np.isclose((moved != 0).mean(), 0.1, atol=0.02)


def test_without_label_noise_the_labels_are_the_truth() -> None:
    table = label_table("ordinal", draw_cases(PhantomConfig(patients=200, label_noise=0.0), 1))
    assert (table["grade"] == table["clean_grade"]).all()


def test_missed_findings_are_the_noise_of_the_hierarchy(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["hierarchical"]
    there = table["clean_nodule"] == 1
    assert np.isclose((table.loc[there, "nodule"] == 0).mean(), 0.1, atol=0.04)
    assert (table.loc[~there, "nodule"] == 0).all()


def test_a_parent_is_present_wherever_its_child_is(tables: dict[str, pd.DataFrame]) -> None:
    space, table = PHANTOM_LABELS["hierarchical"], tables["hierarchical"]
    for prefix in ("", "clean_"):
        for parent, child in space.edges:
            assert (table[prefix + parent] >= table[prefix + child]).all()
    parents = [sum(c == name for _, c in space.edges) for name in space.classes]
    assert max(parents) >= 2


def test_severity_varies_less_within_than_between_patients(
    tables: dict[str, pd.DataFrame],
) -> None:
    by_patient = tables["ordinal"].groupby("patient_id")["severity"]
    pairs = by_patient.apply(list)[by_patient.size() == 2]
    first, second = np.array(pairs.tolist()).T
    assert (first != second).all()
    assert 0.5 < np.corrcoef(first, second)[0, 1] < 0.9


def test_lesions_grow_with_severity_and_lie_in_the_mask(phantoms: dict[str, Path]) -> None:
    root = phantoms["ordinal"]
    table = table_of(root)
    area = np.array([(np.asarray(Image.open(root / n.replace("images", "masks"))) > 0).mean() for n in table.filename])
    assert np.corrcoef(area, table["severity"])[0, 1] > 0.6
    assert (area[table["severity"] < 0.35] == 0).all()
    assert area[table["clean_grade"] == "severe"].mean() > 2 * area[table["clean_grade"] == "mild"].mean()


def test_contrast_changes_the_lesions_and_nothing_else(tmp_path: Path) -> None:
    for name, contrast in (("faint", 0.5), ("strong", 2.0)):
        draw_phantom(PhantomConfig(patients=20, image_size=32, contrast=contrast), 3, tmp_path / name)
    table = table_of(tmp_path / "faint")
    assert table.equals(table_of(tmp_path / "strong"))
    for name in table["filename"]:
        faint, strong = (np.asarray(Image.open(tmp_path / n / name), dtype=int) for n in ("faint", "strong"))
        mask = np.asarray(Image.open(tmp_path / "faint" / name.replace("images", "masks"))) > 0
        assert np.array_equal(mask, np.asarray(Image.open(tmp_path / "strong" / name.replace("images", "masks"))) > 0)
        if mask.any():
            assert (strong - faint)[mask].mean() > 3
        else:
            assert np.abs(strong - faint).max() <= 12  # the soft rim of a lesion too small for the mask


def test_images_of_a_patient_look_more_alike_than_those_of_others(phantoms: dict[str, Path]) -> None:
    """So that splitting image by image would leak."""
    root = phantoms["ordinal"]
    table = table_of(root)
    pixels = np.stack([np.asarray(Image.open(root / n), dtype=float).ravel() for n in table.filename])
    distance = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    patient = table["patient_id"].to_numpy()
    has_sibling = (patient[:, None] == patient[None]).sum(axis=1) > 1
    nearest_is_sibling = patient[distance.argmin(axis=1)] == patient
    assert nearest_is_sibling[has_sibling].mean() > 0.5


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("seed", range(10))
def test_even_the_smallest_phantom_has_each_class_in_three_patients(flavour: str, seed: int) -> None:
    config = PhantomConfig(flavour=flavour, patients=20, max_images_per_patient=1, label_noise=0.4)  # type: ignore[arg-type]
    table = label_table(flavour, draw_cases(config, seed))
    for name in PHANTOM_LABELS[flavour].classes:
        if flavour == "hierarchical":
            having = table[table[name] == 1]
        else:
            having = table[table["grade" if flavour == "ordinal" else "class"] == name]
        assert having["patient_id"].nunique() >= 3


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "keep").touch()
    with pytest.raises(DataError, match=r"has no phantom\.json"):
        draw_phantom(PhantomConfig(patients=20, image_size=16), 1, tmp_path)
    assert (tmp_path / "keep").exists()
