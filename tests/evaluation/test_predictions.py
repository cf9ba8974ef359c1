"""Reading and checking tables of predictions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import DataError
from raregrade.evaluation.predictions import make_predictions, read_predictions, write_predictions
from raregrade.labels import LabelSpace

SPACE = LabelSpace("ordinal", ("none", "mild", "severe"))
HEADER = "image_id,group_id,split,target,prob_none,prob_mild,prob_severe"
ROWS = ("a.png,p1,val,none,0.7,0.2,0.1", "b.png,p2,test,mild,0.2,0.5,0.3", "c.png,p2,test,severe,0.1,0.1,0.8")


def csv(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def refusal(path: Path, space: LabelSpace = SPACE) -> str:
    with pytest.raises(DataError) as caught:
        read_predictions(path, space)
    return str(caught.value)


def test_a_csv_with_class_names_is_read(tmp_path: Path) -> None:
    predictions = read_predictions(csv(tmp_path, *ROWS), SPACE)
    assert predictions.splits == ("val", "test")
    assert predictions.targets("test").tolist() == [1, 2]
    assert predictions.targets("test").dtype == np.int64
    assert predictions.probs("val").tolist() == [[0.7, 0.2, 0.1]]
    assert predictions.groups("test").tolist() == ["p2", "p2"]
    assert predictions.image_ids("test").tolist() == ["b.png", "c.png"]


def test_targets_may_be_class_indices(tmp_path: Path) -> None:
    rows = [r.replace("none", "0").replace("mild", "1").replace("severe", "2.0") for r in ROWS]
    assert read_predictions(csv(tmp_path, *rows), SPACE).targets("test").tolist() == [1, 2]


def test_classes_that_are_numbers_are_read_by_name(tmp_path: Path) -> None:
    space = LabelSpace("ordinal", ("1", "2", "3"))
    header = "image_id,target,prob_1,prob_2,prob_3"
    by_name = csv(tmp_path, "a,1,1,0,0", "b,3,0,0,1", header=header)
    assert read_predictions(by_name, space).targets("test").tolist() == [0, 2]
    by_index = csv(tmp_path, "a,0,1,0,0", "b,2,0,0,1", header=header)
    assert read_predictions(by_index, space).targets("test").tolist() == [0, 2]


def test_without_split_every_row_is_test_and_without_group_every_image_is_its_own(tmp_path: Path) -> None:
    header = "image_id,target,prob_none,prob_mild,prob_severe"
    predictions = read_predictions(csv(tmp_path, "007,none,1,0,0", "7,mild,0,1,0", header=header), SPACE)
    assert predictions.splits == ("test",)
    assert predictions.groups("test").tolist() == ["007", "7"]


def test_a_multilabel_target_may_be_empty(tmp_path: Path) -> None:
    space = LabelSpace("multilabel", ("x", "y"))
    path = csv(tmp_path, "a,1,,0.9,0.8", "b,0,1,0.1,0.7", header="image_id,target_x,target_y,prob_x,prob_y")
    np.testing.assert_array_equal(read_predictions(path, space).targets("test"), [[1, np.nan], [0, 1]])


@pytest.mark.parametrize(
    ("wrong", "line", "says"),
    [
        ("d.png,p3,test,none,1.2,-0.1,-0.1", 5, "prob_none is '1.2', outside [0, 1]"),
        ("d.png,p3,test,none,nan,0.5,0.5", 5, "prob_none is 'nan', not a number"),
        ("d.png,p3,test,none,,0.5,0.5", 5, "prob_none is '', not a number"),
        ("d.png,p3,test,none,0.5,inf,0.5", 5, "prob_mild is 'inf', outside"),
        ("d.png,p3,test,none,0.5,0.2,0.2", 5, "sum to 0.9"),
        ("d.png,p3,test,awful,0.5,0.3,0.2", 5, "target 'awful' is not one of the classes; allowed: none, mild, severe"),
        ("d.png,p3,test,,0.5,0.3,0.2", 5, "target '' is not one of the classes"),
        ("a.png,p3,test,none,0.5,0.3,0.2", 5, "image_id 'a.png' is also at"),
        ("d.png,p3,holdout,none,0.5,0.3,0.2", 5, "unknown split 'holdout'; allowed: train, val, test"),
        ("d.png,p2,val,none,0.5,0.3,0.2", 5, "group 'p2' is in split val, but at"),
        (",p3,test,none,0.5,0.3,0.2", 5, "image_id is empty"),
        ("d.png,,test,none,0.5,0.3,0.2", 5, "group_id is empty"),
        ("\nd.png,p3,test,none,0.5,0.2,0.2", 6, "sum to 0.9"),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(tmp_path: Path, wrong: str, line: int, says: str) -> None:
    path = csv(tmp_path, *ROWS, wrong)
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: ")
    assert says in message


def test_an_index_outside_the_classes_is_refused(tmp_path: Path) -> None:
    rows = [r.replace("none", "0").replace("mild", "1").replace("severe", "3") for r in ROWS]
    assert "line 4: target '3' is not one of the classes" in refusal(csv(tmp_path, *rows))


def test_rounded_probabilities_pass(tmp_path: Path) -> None:
    read_predictions(csv(tmp_path, *ROWS, "d.png,p3,test,none,0.3333,0.3333,0.3333"), SPACE)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,none,1,0", header="image_id,target,prob_none,prob_mild")
    assert "lacks the column prob_severe" in refusal(path)


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    frame = pd.read_csv(csv(tmp_path, *ROWS))
    frame.insert(0, "prob_none ", 1.0)
    frame.to_csv(tmp_path / "twice.csv", index=False)
    assert "prob_none more than once" in refusal(tmp_path / "twice.csv")
    assert "no such file" in refusal(path)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "p.parquet"
    broken.write_bytes(b"not parquet")
    assert "cannot be read as parquet" in refusal(broken)
    (tmp_path / "p.txt").write_text("x")
    assert ".parquet or .csv" in refusal(tmp_path / "p.txt")
    assert "no rows" in refusal(csv(tmp_path))
    (tmp_path / "empty.csv").write_text("")
    assert str(tmp_path / "empty.csv") in refusal(tmp_path / "empty.csv")


def test_a_wrong_row_of_a_parquet_file_is_counted_from_one(tmp_path: Path) -> None:
    frame = pd.read_csv(csv(tmp_path, *ROWS))
    frame.loc[1, "prob_mild"] = np.nan
    # The stored index is not the position in the file.
    frame.set_index(pd.Index([10, 20, 30])).to_parquet(tmp_path / "p.parquet")
    assert f"{tmp_path / 'p.parquet'}, row 2: prob_mild" in refusal(tmp_path / "p.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    written = make_predictions(
        SPACE,
        image_id=["x", "y", "ä"],
        group_id=["1", "1", "02"],
        split=["val", "val", "test"],
        targets=np.array([0, 2, 1]),
        probs=rng.dirichlet(np.ones(3), 3),
        logits=rng.normal(size=(3, 2)).astype(np.float32),
        embeddings=rng.normal(size=(3, 5)),
    )
    path = tmp_path / f"p{suffix}"
    write_predictions(written, path)
    read = read_predictions(path, SPACE)
    pd.testing.assert_frame_equal(read.frame, written.frame, check_dtype=suffix == ".parquet")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@given(
    st.lists(st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip), min_size=1, unique=True)
)
def test_any_image_name_survives_the_csv(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    n = len(names)
    path = tmp_path_factory.mktemp("names") / "p.csv"
    written = make_predictions(
        SPACE, image_id=names, group_id=names, split=["test"] * n, targets=np.zeros(n, int), probs=np.eye(3)[[0] * n]
    )
    write_predictions(written, path)
    assert read_predictions(path, SPACE).image_ids("test").tolist() == names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"targets": np.array([0])}, "differ in length"),
        ({"probs": np.ones((2, 2)) / 2}, r"probs have shape \(2, 2\); expected \[N, 3\]"),
        ({"probs": np.array([[np.nan, 0, 1], [1, 0, 0]])}, "row 0: prob_none is nan"),
        ({"group_id": ["p", "p"]}, "group 'p' is in split test"),
    ],
)
def test_arrays_are_checked_like_files(change: dict[str, object], says: str) -> None:
    arrays = {
        "image_id": ["a", "b"],
        "group_id": ["p", "q"],
        "split": ["val", "test"],
        "targets": np.array([0, 1]),
        "probs": np.eye(3)[:2],
    }
    with pytest.raises(DataError) as caught:
        make_predictions(SPACE, **(arrays | change))  # type: ignore[arg-type]
    assert re.search(says, str(caught.value))
