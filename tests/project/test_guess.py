"""What tables of labels are taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raregrade.errors import DataError, UserError
from raregrade.project.folders import as_csv, rows_of_folders
from raregrade.project.grades import in_order
from raregrade.project.guess import guess_folders, guess_medmnist, guess_table

from .conftest import Write


def test_a_lesion_table_is_nominal_and_grouped_by_its_repeated_column(table: Write) -> None:
    names = ["nv"] * 20 + ["mel"] * 12 + ["bcc"] * 10
    rows = [f"images/I{i:03}.jpg,{name},L{i // 2},histo,45.0,male" for i, name in enumerate(names)]
    guess = guess_table(table("filename,label,group,dx_type,age,sex", rows))
    assert guess.data == {
        "source": "folder", "path": guess.data["path"], "table": "labels.csv", "image_column": "filename",
        "group_column": "group", "task": "multiclass", "classes": ["nv", "mel", "bcc"], "label_column": "label",
        "image_size": 64, "color": "rgb",
    }  # fmt: skip
    assert guess.remarks == []


def test_a_score_of_whole_numbers_is_ordinal_before_its_parts_and_a_text(table: Write) -> None:
    rows = [f"{i}.png,{i % 4},{i % 7},{i % 6},P{i // 2},{'COVID-19' if i % 3 else 'ARDS'}" for i in range(60)]
    rows[3] = rows[3].replace(",P1,", ",,")
    guess = guess_table(table("filename,S-A,S-Global,J-Global,patientid,finding", rows, grey=True))
    assert (guess.data["task"], guess.data["label_column"]) == ("ordinal", "S-Global")
    assert guess.data["classes"] == ["0", "1", "2", "3", "4", "5", "6"]
    assert (guess.data["group_column"], guess.data["color"]) == ("patientid", "grey")
    assert "1 rows have no patientid" in guess.remarks[0]


def test_columns_of_findings_are_multilabel_with_the_hierarchy_of_their_paths(table: Write) -> None:
    rows = []
    for i in range(60):
        path = ["Pneumonia/Viral", "Pneumonia", "No Finding"][i % 3]
        rows.append(f"{i}.png,{i},{path},{int(i % 3 == 2)},{int(i % 3 < 2)},{int(i % 3 == 0)},{int(i == 0)},{i % 90}")
    guess = guess_table(table("filename,patientid,finding_path,No Finding,Pneumonia,Viral,Fungal,age", rows))
    assert guess.data["task"] == "multilabel"
    assert guess.data["classes"] == ["Pneumonia", "Viral"]
    assert guess.data["hierarchy"] == [["Pneumonia", "Viral"]]
    assert any("No Finding, Fungal" in remark for remark in guess.remarks)


def test_uncertain_and_blank_cells_of_findings_are_said(table: Write) -> None:
    cells = ["1.0", "-1.0", "0.0", ""]
    rows = [f"{i}.png,{cells[i % 4]},{cells[i % 3]}" for i in range(60)]
    guess = guess_table(table("Path,Cardiomegaly,Edema", rows))
    assert (guess.data["uncertain"], guess.data["blank"]) == ("ignore", "ignore")


def test_all_findings_in_one_cell_need_a_separator(table: Write) -> None:
    rows = [f"{i}.png,{['Effusion|Mass', 'Effusion', 'No Finding'][i % 3]},{i // 2}" for i in range(40)]
    guess = guess_table(table("Image Index,Finding Labels,Patient ID", rows))
    assert guess.data["classes"] == ["Effusion", "Mass"]
    assert guess.data["label_separator"] == "|"
    assert guess.data["negative_names"] == ["No Finding"]
    assert guess.data["group_column"] == "Patient ID"


def test_ids_without_suffix_are_found_among_the_images(table: Write) -> None:
    guess = guess_table(table("id_code,diagnosis", [f"{i:012},{i % 5}" for i in range(50)]))
    assert (guess.data["image_column"], guess.data["task"]) == ("id_code", "ordinal")
    assert "patient" in guess.remarks[0]


def test_an_official_split_is_taken(table: Write) -> None:
    splits = ["train", "train", "val", "test"]
    rows = [f"{i}.png,{['b', 'a'][i % 2]},{splits[i % 4]}" for i in range(40)]
    assert guess_table(table("filename,label,split", rows)).data["split"] == {"column": "split"}


def test_a_table_away_from_its_images_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("filename,label\na.png,1\nb.png,0\n")
    with pytest.raises(DataError, match="Put the table into the folder of its images"):
        guess_table(path)


def test_a_table_without_labels_is_refused_with_advice(table: Write) -> None:
    with pytest.raises(DataError, match="no column looks like labels; the columns are filename, age"):
        guess_table(table("filename,age", [f"{i}.png,{i}" for i in range(40)]))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["severe", "none", "moderate", "mild"], ["none", "mild", "moderate", "severe"]),
        (["Proliferative", "No DR", "Severe", "Moderate"], ["No DR", "Moderate", "Severe", "Proliferative"]),
        (["stage III", "stage I", "stage II"], ["stage I", "stage II", "stage III"]),
        (["T10", "T2", "T1"], ["T1", "T2", "T10"]),
        (["nv", "mel", "bcc"], None),
        (["T1", "N2", "M3"], None),
        (["mild", "severe"], None),
    ],
)  # fmt: skip
def test_names_of_grades_are_put_in_order(names: list[str], expected: list[str] | None) -> None:
    assert in_order(names) == expected


def test_folders_of_classes_become_a_table(table: Write) -> None:
    names = [
        f"{split}/{grade}/{i}.png" for split in ("train", "val", "test") for grade in ("mild", "none") for i in (0, 1)
    ]
    root = table("filename", names).parent
    rows = rows_of_folders(root)
    assert as_csv(rows).splitlines()[:2] == ["filename,label,split", "test/mild/0.png,mild,test"]
    assert guess_folders(root, rows).data["split"] == {"column": "split"}
    (root / "stray.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"expected one folder per class, and .* lies in none"):
        rows_of_folders(root)


def test_a_medmnist_file_says_its_size_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "retinamnist.npz"
    np.savez(
        path, train_images=np.zeros((6, 28, 28, 3), np.uint8), train_labels=np.array([[0], [1], [2], [3], [4], [0]])
    )
    data = guess_medmnist(path).data
    assert (data["task"], data["classes"], data["image_size"]) == ("ordinal", ["0", "1", "2", "3", "4"], 28)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="no MedMNIST file"):
        guess_medmnist(path)
