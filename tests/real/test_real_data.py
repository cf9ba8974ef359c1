"""Preparing real, public datasets: their published counts, their known flaws, patients kept together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import DataConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.prepare import prepare_dataset
from raregrade.data.verify import verify_dataset
from raregrade.errors import DataError

pytestmark = pytest.mark.real


def prepare(out: Path, **keys: Any) -> PreparedDataset:
    return prepare_dataset(DataConfig.model_validate(keys), 35, out)


def need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not in the folder of real images")
    return path


def class_counts(dataset: PreparedDataset, split: str) -> list[int]:
    targets = dataset.targets(dataset.rows(split))
    return np.bincount(targets, minlength=dataset.label_space.num_classes).tolist()


def assert_shares(dataset: PreparedDataset, tolerance: int) -> None:
    """Val and test each have 15 % of the images of each class, within ``tolerance`` images."""
    columns = dataset.manifest[dataset.label_space.label_columns].to_numpy()
    multilabel = dataset.label_space.task == "multilabel"
    for k in range(dataset.label_space.num_classes):
        of_class = columns[:, k] == 1 if multilabel else columns[:, 0] == k
        for split in ("val", "test"):
            assert abs(of_class[dataset.rows(split)].sum() - 0.15 * of_class.sum()) <= tolerance


def test_retinamnist_has_its_official_split_and_counts(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "medmnist" / "retinamnist.npz")
    dataset = prepare(
        tmp_path / "out", source="medmnist", path=str(path), task="ordinal", classes=list("01234"), image_size=28
    )
    assert dataset.info["counts"] == {"train": 1080, "val": 120, "test": 400}
    assert class_counts(dataset, "train") == [486, 128, 206, 194, 66]
    assert class_counts(dataset, "test") == [174, 46, 92, 68, 20]
    with np.load(path) as archive:
        assert np.array_equal(dataset.images(dataset.rows("val")), archive["val_images"])
    assert verify_dataset(dataset.root) == []


def test_breastmnist_is_refused_for_its_duplicate_unless_waived(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "medmnist" / "breastmnist.npz")
    keys = {
        "source": "medmnist", "path": str(path), "task": "multiclass", "classes": ["malignant", "normal or benign"],
        "image_size": 28, "color": "grey",
    }  # fmt: skip
    pair = "train_000115 (train), test_000076 (test)"
    texts = [
        f"images with identical pixels lie in different splits: {pair}",
        f"images with identical pixels have different labels: {pair}",
    ]
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "out", **keys)
    assert all(text in str(caught.value) for text in texts)
    reason = "the official split, kept for comparison with publications"
    waive = dict.fromkeys(("identical_across_splits", "conflicting_labels"), reason)
    dataset = prepare(tmp_path / "out", **keys, waive=waive)
    assert dataset.info["counts"] == {"train": 546, "val": 78, "test": 156}
    assert dataset.info["unit"] == "images"
    assert dataset.info["warnings"] == [f"waived: {text} (reason: {reason})" for text in texts]
    assert verify_dataset(dataset.root) == []


def test_patients_that_brixia_leaves_blank_are_refused_with_their_lines(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "brixia_severity_cxr")
    with pytest.raises(DataError, match=r"12 problems:\n  .*line \d+: the group \(column 'patientid'\) is empty"):
        prepare(
            tmp_path / "out",
            source="folder",
            path=str(path),
            task="ordinal",
            classes=[str(n) for n in range(19)],
            label_column="S-Global",
            group_column="patientid",
        )


@pytest.mark.slow
def test_ham10000_keeps_lesions_together_and_the_rarest_share(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "ham10000_200x150")
    dataset = prepare(
        tmp_path / "out",
        source="folder",
        path=str(path),
        task="multiclass",
        classes=["nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"],
        group_column="group",
    )
    total = np.sum([class_counts(dataset, s) for s in ("train", "val", "test")], axis=0)
    assert total.tolist() == [6705, 1113, 1099, 514, 327, 142, 115]
    assert dataset.manifest["group_id"].nunique() == 7470
    assert_shares(dataset, tolerance=1)
    assert verify_dataset(dataset.root) == []


def test_covid_chestxray_is_dealt_by_patient_over_a_hierarchy(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "covid_chestxray")
    dataset = prepare(
        tmp_path / "out",
        source="folder",
        path=str(path),
        task="multilabel",
        classes=["Pneumonia", "Viral", "Bacterial", "Fungal", "COVID-19", "SARS", "Streptococcus", "ARDS"],
        hierarchy=[
            ["Pneumonia", "Viral"],
            ["Pneumonia", "Bacterial"],
            ["Pneumonia", "Fungal"],
            ["Viral", "COVID-19"],
            ["Viral", "SARS"],
            ["Bacterial", "Streptococcus"],
        ],
        group_column="patientid",
        color="grey",
    )
    assert len(dataset) == 542
    assert dataset.manifest["group_id"].nunique() == 301
    assert dataset.manifest["label_COVID-19"].sum() == 428
    assert_shares(dataset, tolerance=3)
    manifest = dataset.manifest
    pair = manifest[manifest["sha256"].duplicated(keep=False)]
    assert [name[7:13] for name in pair["image_id"]] == ["353889", "case_7"], "the set's one known pair of names"
    assert pair["split"].nunique() == pair["fold"].nunique() == 1
    assert verify_dataset(dataset.root) == []


def test_the_nih_subset_is_dealt_by_patient_over_its_findings(real_data: Path, tmp_path: Path) -> None:
    path = need(real_data / "nih_chestxray14_subset_320")
    findings = {
        "Pneumonia": 500, "Infiltration": 187, "Atelectasis": 113, "Edema": 96, "Effusion": 90, "Consolidation": 33,
        "Pleural_Thickening": 27, "Nodule": 20, "Mass": 19, "Cardiomegaly": 16, "Pneumothorax": 12, "Emphysema": 10,
    }  # fmt: skip
    dataset = prepare(
        tmp_path / "out",
        source="folder",
        path=str(path),
        task="multilabel",
        classes=list(findings),
        group_column="patient_id",
        color="grey",
    )
    counts = dataset.manifest[dataset.label_space.label_columns].sum().astype(int)
    assert counts.tolist() == list(findings.values())
    assert dataset.manifest["group_id"].nunique() == 682
    assert_shares(dataset, tolerance=3)
    assert verify_dataset(dataset.root) == []
