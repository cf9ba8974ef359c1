"""Reading and checking tables of predictions."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.errors import DataError
from raregrade.evaluation.predictions import make_predictions, read_predictions, write_predictions
from raregrade.labels import LabelSpace
from raregrade.names import is_missing, normalised

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


def of_dtype(values: list[int], dtype: str) -> pd.Series:
    """Whole numbers as another program may have them in memory."""
    texts = {"text": "{}", "text with decimals": "{}.0", "padded text": " {} ", "categorical text": "{}"}
    if dtype in texts:
        series = pd.Series([texts[dtype].format(v) for v in values], dtype=object)
        return series.astype("category") if dtype.startswith("categorical") else series
    return pd.Series(values).astype("category") if dtype == "category" else pd.Series(values, dtype=dtype)


DTYPES = [
    "int64", "int8", "uint16", "Int64", "float32", "float64", "Float64", "string", "category",
    "text", "text with decimals", "padded text", "categorical text",
]  # fmt: skip


@given(
    names=st.lists(st.integers(0, 50), min_size=2, max_size=5, unique=True),
    draws=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    dtype=st.sampled_from(DTYPES),
    suffix=st.sampled_from([".parquet", ".csv"]),
)
def test_targets_that_are_numbers_are_names_in_every_dtype(
    tmp_path_factory: pytest.TempPathFactory, names: list[int], draws: list[int], dtype: str, suffix: str
) -> None:
    space = LabelSpace("multiclass", tuple(map(str, names)))
    expected = [draw % len(names) for draw in draws]
    frame = pd.DataFrame(np.eye(len(names))[expected], columns=space.prob_columns)
    frame.insert(0, "image_id", [f"i{n}" for n in range(len(draws))])
    frame["target"] = of_dtype([names[k] for k in expected], dtype)
    path = tmp_path_factory.mktemp("dtypes") / f"p{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    assert read_predictions(path, space).targets("test").tolist() == expected


@pytest.mark.parametrize("targets", [["1", "2", "0"], ["0", "0", "1"], ["4", "1", "2"], ["0", "9", "0"]])
def test_a_number_is_no_position_where_classes_are_numbers(tmp_path: Path, targets: list[str]) -> None:
    space = LabelSpace("ordinal", ("1", "2", "3"))
    rows = [f"i{n},{t},1,0,0" for n, t in enumerate(targets)]
    message = refusal(csv(tmp_path, *rows, header="image_id,target,prob_1,prob_2,prob_3"), space)
    wrong = next(n for n, t in enumerate(targets) if t not in space.classes)
    assert f"line {wrong + 2}: target '{targets[wrong]}' is not one of the classes; allowed: 1, 2, 3" in message
    assert ("As positions from 0 all targets would fit" in message) == (max(targets) < "3")


def test_positions_are_not_taken_where_only_some_classes_are_numbers(tmp_path: Path) -> None:
    space = LabelSpace("ordinal", ("none", "1", "2"))
    path = csv(tmp_path, "a,0,1,0,0", "b,1,0,1,0", header="image_id,target,prob_none,prob_1,prob_2")
    assert "line 2: target '0' is not one of the classes; allowed: none, 1, 2. As positions" in refusal(path, space)


def test_without_split_rows_are_test_and_without_group_their_own(tmp_path: Path) -> None:
    header = "image_id,target,prob_none,prob_mild,prob_severe"
    predictions = read_predictions(csv(tmp_path, "007,none,1,0,0", "7,mild,0,1,0", header=header), SPACE)
    assert predictions.splits == ("test",)
    assert predictions.groups("test").tolist() == ["007", "7"]
    assert predictions.unit == "images"
    no_groups, no_split = predictions.assumptions
    assert no_groups.startswith("there is no column group_id: each image is taken as its own group")
    assert no_split == "there is no column split: all 2 rows are taken as the test split"


def test_nothing_is_assumed_of_a_table_that_says_all(tmp_path: Path) -> None:
    predictions = read_predictions(csv(tmp_path, *ROWS), SPACE)
    assert predictions.assumptions == ()
    assert predictions.unit == "patients"


def test_positions_are_an_assumption(tmp_path: Path) -> None:
    rows = [r.replace("none", "0").replace("mild", "1").replace("severe", "2.0") for r in ROWS]
    (assumed,) = read_predictions(csv(tmp_path, *rows), SPACE).assumptions
    assert assumed == "target holds numbers, and the classes are names: taken as positions from 0 in none, mild, severe"


@pytest.mark.parametrize("column", ["patient", "Patient ID", "PatientID", "patient_id", "subject", "MRN"])
def test_patients_that_are_not_the_groups_are_refused(tmp_path: Path, column: str) -> None:
    header = f"image_id,{column},target,prob_none,prob_mild,prob_severe"
    path = csv(tmp_path, "a,1,none,1,0,0", "b,1,mild,0,1,0", "c,2,mild,0,1,0", header=header)
    assert (
        f"has no column group_id, but the column {column} looks like the patient, with 2 values for 3 images"
        in refusal(path)
    )
    alone = csv(tmp_path, "a,1,none,1,0,0", "b,NA,mild,0,1,0", "c,NA,mild,0,1,0", header=header)
    assert read_predictions(alone, SPACE).unit == "images"


@pytest.mark.parametrize("column", ["image_id", "group_id"])
@pytest.mark.parametrize("gap", ["NA", "<NA>", "None", "null", "nan", "N/A", "-", "?", "  "])
def test_every_spelling_of_a_missing_id_is_refused(tmp_path: Path, column: str, gap: str) -> None:
    row = {"image_id": "d.png", "group_id": "p3"} | {column: gap}
    path = csv(tmp_path, *ROWS, f"{row['image_id']},{row['group_id']},test,none,1,0,0")
    assert f"line 5: {column} is empty" in refusal(path)


def test_an_id_that_is_missing_in_a_parquet_file_is_refused(tmp_path: Path) -> None:
    frame = pd.read_csv(csv(tmp_path, *ROWS))
    frame["group_id"] = [1.0, np.nan, 3.0]
    frame.to_parquet(tmp_path / "p.parquet")
    assert "row 2: group_id is empty" in refusal(tmp_path / "p.parquet")


def test_whole_numbers_are_the_same_id_as_integers_and_as_floats(tmp_path: Path) -> None:
    frame = pd.read_csv(csv(tmp_path, *ROWS))
    for dtype in ("int64", "float64", "Int32"):
        frame["group_id"] = pd.Series([1, 12, 12], dtype=dtype)
        frame.to_parquet(tmp_path / "p.parquet")
        assert read_predictions(tmp_path / "p.parquet", SPACE).groups("test").tolist() == ["12", "12"]


def test_groups_that_look_alike_are_named(tmp_path: Path) -> None:
    rows = [ROWS[0].replace("p1", "P2"), *ROWS[1:]]
    (assumed,) = read_predictions(csv(tmp_path, *rows), SPACE).assumptions
    assert assumed == "group ids that differ only in case, blanks or the spelling of a number: 'P2', 'p2'"


@pytest.mark.parametrize(("right", "name"), [("split", "Split"), ("group_id", "GROUP_ID")])
def test_a_column_that_would_be_overlooked_for_its_case_is_refused(tmp_path: Path, right: str, name: str) -> None:
    path = csv(tmp_path, *ROWS, header=HEADER.replace(right, name))
    assert f"has a column {name}, which is not read; rename it to {right}" in refusal(path)


def test_blanks_in_the_header_do_no_harm(tmp_path: Path) -> None:
    path = csv(tmp_path, *ROWS, header=HEADER.replace(",", " , "))
    assert read_predictions(path, SPACE).groups("test").tolist() == ["p2", "p2"]


def test_a_target_in_two_columns_is_refused_in_csv_and_in_parquet(tmp_path: Path) -> None:
    rows = [f"{row},severe" for row in ROWS]
    assert "has the column target more than once" in refusal(csv(tmp_path, *rows, header=f"{HEADER},target"))
    assert "has the columns target and Target" in refusal(csv(tmp_path, *rows, header=f"{HEADER},Target"))
    table = pa.Table.from_pandas(pd.read_csv(csv(tmp_path, *ROWS)), preserve_index=False)
    for name in ("target", "target "):
        pq.write_table(table.append_column(name, pa.array(["severe"] * 3)), tmp_path / "p.parquet")
        assert "has the column target more than once" in refusal(tmp_path / "p.parquet")


def test_a_comma_at_the_end_of_every_row_moves_no_column(tmp_path: Path) -> None:
    predictions = read_predictions(csv(tmp_path, *(f"{row}," for row in ROWS)), SPACE)
    assert predictions.targets("test").tolist() == [1, 2]
    assert predictions.image_ids("test").tolist() == ["b.png", "c.png"]
    assert "line 4: 8 fields under 7 columns (surplus: '0.5')" in refusal(csv(tmp_path, *ROWS[:2], ROWS[2] + ",0.5"))


def test_an_index_that_pandas_stored_is_a_column(tmp_path: Path) -> None:
    pd.read_csv(csv(tmp_path, *ROWS)).set_index("image_id").to_parquet(tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet", SPACE).image_ids("test").tolist() == ["b.png", "c.png"]


def test_classes_are_compared_in_composed_unicode(tmp_path: Path) -> None:
    space = LabelSpace("ordinal", ("léger", "sévère"))
    header, row = (
        unicodedata.normalize("NFD", text) for text in ("image_id,target,prob_léger,prob_sévère", "a,sévère,0,1")
    )
    assert read_predictions(csv(tmp_path, row, header=header), space).targets("test").tolist() == [1]


def test_a_logit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = csv(
        tmp_path, *(f"{row},{v}" for row, v in zip(ROWS, ("1.5", "-2", "x"), strict=True)), header=f"{HEADER},logit_0"
    )
    assert "line 4: logit_0 is 'x', not a number" in refusal(path)


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


def test_decimals_with_a_comma_are_refused_with_what_to_write(tmp_path: Path) -> None:
    path = csv(tmp_path, *(row.replace(",", ";").replace(".", ",") for row in ROWS), header=HEADER.replace(",", ";"))
    assert "line 2: prob_none is '0,7', not a number; write decimals with a point" in refusal(path)


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
    )
    path = tmp_path / f"p{suffix}"
    write_predictions(written, path)
    read = read_predictions(path, SPACE)
    assert read.assumptions == ()
    pd.testing.assert_frame_equal(read.frame, written.frame, check_dtype=suffix == ".parquet")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C"]), min_size=1)
        .map(normalised)
        .filter(lambda t: not is_missing(t)),
        min_size=1,
        unique=True,
    )
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
        ({"group_id": ["p", "NA"]}, "row 1: group_id is empty: 'NA' stands for a missing value"),
        ({"targets": np.array([0, 3])}, "target 3 is not a class index; allowed: 0 to 2"),
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


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("classes", [("1", "2", "3"), ("2", "1", "0"), ("1", "0", "other")])
def test_class_indices_survive_the_file_whatever_the_classes_are_called(
    tmp_path: Path, suffix: str, classes: tuple[str, ...]
) -> None:
    space = LabelSpace("multiclass", classes)
    arrays = {"image_id": ["a", "b", "c"], "group_id": ["p", "q", "r"], "split": ["test"] * 3}
    written = make_predictions(space, targets=np.array([0, 2, 1]), probs=np.eye(3), **arrays)
    write_predictions(written, tmp_path / f"p{suffix}")
    assert written.targets("test").tolist() == [0, 2, 1]
    assert read_predictions(tmp_path / f"p{suffix}", space).targets("test").tolist() == [0, 2, 1]
