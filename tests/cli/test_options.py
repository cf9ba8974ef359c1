"""What shared options become."""

from __future__ import annotations

from pathlib import Path

import pytest

from raregrade.cli.options import folders_holding, read_json
from raregrade.errors import UserError


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "model.json").write_text("{}")


def test_folders_are_found_up_to_two_levels_below_and_in_order(tmp_path: Path) -> None:
    make(tmp_path, "ce/2", "ce/1", "lmf/1", "single")
    found = folders_holding("model.json", [tmp_path])
    assert [str(f.relative_to(tmp_path)) for f in found] == ["ce/1", "ce/2", "lmf/1", "single"]


def test_a_folder_that_holds_the_file_itself_is_not_searched(tmp_path: Path) -> None:
    make(tmp_path, "ce", "ce/old")
    assert folders_holding("model.json", [tmp_path / "ce"]) == [tmp_path / "ce"]


def test_what_lies_deeper_is_not_found(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c")
    with pytest.raises(UserError, match=r"no model\.json in it, nor up to two levels below"):
        folders_holding("model.json", [tmp_path])


def test_reports_of_folds_are_found_three_levels_below(tmp_path: Path) -> None:
    make(tmp_path, "ce/1/0", "ce/1/1")
    found = folders_holding("model.json", [tmp_path], levels=3)
    assert [str(f.relative_to(tmp_path)) for f in found] == ["ce/1/0", "ce/1/1"]


def test_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    make(tmp_path, "ce/1", "lmf/1")
    found = folders_holding("model.json", [tmp_path / "lmf" / "1", tmp_path])
    assert found == [tmp_path / "lmf" / "1", tmp_path / "ce" / "1"]


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        folders_holding("model.json", [tmp_path / "nowhere"])


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_json_that_cannot_be_read_is_the_users_error_and_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registered.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"registered\.json cannot be read: .* Write it again\."):
        read_json(path, "Write it again.")


def test_missing_json_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"registered\.json: no such file\. Write it\."):
        read_json(tmp_path / "registered.json", "Write it.")
