"""Finding the file that a name in a table means."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade.data.sources.files import ImageFiles
from raregrade.errors import DataError


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refusal(files: ImageFiles, name: str) -> str:
    with pytest.raises(DataError) as caught:
        files.find(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", "a.png"),
        ("./a.png", "./a.png"),
        ("sub/b.jpg", "sub/b.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        (".\\sub\\b.jpg", "./sub/b.jpg"),
        ("b.jpg", "sub/b.jpg"),
        ("b", "sub/b.jpg"),
        ("1.2.3", "dicom/1.2.3.png"),
        ("e\u0301.png", "é.png"),
        ("n\u0303.png", "n\u0303.png"),
        ("ñ.png", "n\u0303.png"),
    ],
)
def test_a_name_finds_its_file(tmp_path: Path, name: str, found: str) -> None:
    folder(tmp_path, "a.png", "sub/b.jpg", "sub/b.txt", "dicom/1.2.3.png", "é.png", "n\u0303.png")
    assert ImageFiles(tmp_path).find(name) == found


def test_folder_and_suffix_complete_a_name(tmp_path: Path) -> None:
    folder(tmp_path, "train/a.png", "train/a.jpg", "test/a.png")
    assert ImageFiles(tmp_path, "train", ".png").find("a") == "train/a.png"
    assert ImageFiles(tmp_path, "train/", ".jpg").find("a") == "train/a.jpg"
    assert ImageFiles(tmp_path, "test").find("a") == "test/a.png"


def test_a_name_that_several_files_have_is_refused_with_the_keys_to_set(tmp_path: Path) -> None:
    files = ImageFiles(folder(tmp_path, "train/a.png", "test/a.png", "test/b.png", "test/b.jpg"))
    assert f"'a' may be any of test/a.png, train/a.png below {tmp_path}. Set data.image_folder" in refusal(files, "a")
    assert "'a.png' may be any of test/a.png, train/a.png" in refusal(files, "a.png")
    assert "'b' may be any of test/b.jpg, test/b.png" in refusal(files, "b")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Sub/B.JPG", "there is sub/b.jpg"),
        ("other/b.jpg", "there is sub/b.jpg"),
        ("sub/b.png", "there is sub/b.jpg"),
        ("gone.png", "holds 4 files, such as a.png, sub/b.jpg, sub/c.jpg"),
    ],
)
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, name: str, says: str) -> None:
    files = ImageFiles(folder(tmp_path, "a.png", "sub/b.jpg", "sub/c.jpg", "sub/d.jpg"))
    message = refusal(files, name)
    assert f"no image file {tmp_path / name}; " in message
    assert says in message


def test_a_missing_folder_is_named_with_those_there_are(tmp_path: Path) -> None:
    folder(tmp_path, "train/a.png", "labels.csv")
    with pytest.raises(DataError, match=r"data\.image_folder: no folder .*images; .* holds train/"):
        ImageFiles(tmp_path, "images")
