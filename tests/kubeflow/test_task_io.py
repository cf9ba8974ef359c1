import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp.dsl import PipelineTaskFinalStatus

from raregrade.config import PrepareSection, TrainConfig, TrainSection, params_from_dict, section
from raregrade.kubeflow import task_io
from raregrade.schema import ConfigModel


class Thing:
    """The part of a kfp artifact that components are given."""

    def __init__(self, path):
        self.path = str(path)
        self.metadata = {}
        self.matrix = None

    def log_metric(self, name, value):
        self.metadata[name] = value

    def log_confusion_matrix(self, categories, matrix):
        self.matrix = SimpleNamespace(categories=categories, rows=matrix)


@pytest.fixture
def params():
    return params_from_dict(
        {
            "data": {"source": "folder", "path": "raw", "task": "ordinal", "classes": ["none", "NA", "3"]},
            "losses": {"ce": {}, "sharp": {"kind": "cdw_ce", "power": 3.0}},
            "compare": {"losses": ["ce", "sharp"], "seeds": [1], "baseline": "ce"},
            "gate": [{"metric": "val_qwk", "threshold": 0.5}],
        }
    )


def as_doubles(value):
    """As a protobuf Struct holds it."""
    return json.loads(json.dumps(value), parse_int=float)


@given(
    st.builds(
        dict,
        lr=st.floats(1e-9, 10),
        epochs=st.integers(1, 10_000),
        weight_decay=st.floats(0, 10, allow_subnormal=False),  # training in this process flushes them
        gradient_clip=st.none() | st.floats(1e-6, 1e6),
        dropout=st.sampled_from([0.0, 0.5]),
    )
)
def test_a_section_is_the_same_after_a_trip_through_doubles_without_nulls(changes):
    sent = TrainConfig(**changes)
    wire = task_io.section_to_argument(sent)
    assert None not in wire.values()
    assert task_io.section_from_argument(TrainConfig, as_doubles(wire)) == sent


@pytest.mark.parametrize("step", ["prepare", "train", "evaluate", "compare", "register"])
def test_every_section_makes_the_trip(params, step):
    sent = section(params, step, "sharp" if step == "train" else None)
    assert task_io.section_from_argument(type(sent), as_doubles(task_io.section_to_argument(sent))) == sent


def test_the_parameters_of_a_loss_keep_their_type(params):
    sent = section(params, "train", "sharp")
    received = task_io.section_from_argument(TrainSection, as_doubles(task_io.section_to_argument(sent)))
    assert type(received.loss.params) is type(sent.loss.params)
    assert isinstance(received.loss.params.power, float)


def test_a_null_that_could_not_be_restored_is_not_dropped():
    class Odd(ConfigModel):
        value: int | None = 3

    with pytest.raises(ValueError, match="null that is not its key's default"):
        task_io.section_to_argument(Odd(value=None))


def test_a_fraction_for_a_whole_number_is_refused():
    with pytest.raises(ValueError, match="epochs"):
        task_io.section_from_argument(TrainConfig, {"epochs": 1.5})


def test_raw_data_replace_the_path_and_nothing_else(params):
    sent = section(params, "prepare")
    moved = task_io.with_raw_data(sent, "/mnt/raw")
    assert moved.data.path == "/mnt/raw"
    assert moved.model_dump() | {"data": None} == sent.model_dump() | {"data": None}
    assert moved.data.model_dump() | {"path": "raw"} == sent.data.model_dump()
    assert isinstance(moved, PrepareSection)


def test_without_raw_data_the_path_stays(params):
    assert task_io.with_raw_data(section(params, "prepare"), "") == section(params, "prepare")


def test_runs_are_grouped_by_the_id_of_the_pipeline_run(monkeypatch):
    monkeypatch.setenv("RAREGRADE_GROUP", "0c6b9e0e-run")
    assert task_io.tracking("none", "severity") == task_io.Tracking("none", "severity", "0c6b9e0e-run")


def test_the_outcome_of_a_run_is_read_from_what_a_backend_hands_its_exit_handler(monkeypatch):
    """As recorded from a backend 2.17.0, whose error is empty even after a failure."""
    monkeypatch.delenv("RAREGRADE_GROUP", raising=False)
    status = PipelineTaskFinalStatus("COMPLETE", "run-7", "pipeline", None, None)
    assert task_io.outcome("compare_losses", status).state == "SUCCEEDED"
    assert task_io.outcome("compare_losses", status).run == "run-7"
    nothing = PipelineTaskFinalStatus(None, "run-7", "pipeline", None, "")
    assert task_io.outcome("compare_losses", nothing).sentence == "compare_losses ended as UNKNOWN"


def test_checkpoints_are_kept_only_where_a_folder_outlives_the_task(monkeypatch, tmp_path):
    monkeypatch.delenv("RAREGRADE_CHECKPOINTS", raising=False)
    assert task_io.checkpoints() is None
    monkeypatch.setenv("RAREGRADE_CHECKPOINTS", str(tmp_path))
    assert task_io.checkpoints() == str(tmp_path)


@pytest.fixture
def report(tmp_path):
    """A report folder as far as the hand-over reads it; classes are named as pandas names missing values."""
    folder = tmp_path / "report"
    folder.mkdir()
    space = {"task": "ordinal", "classes": ["none", "NA", "3"], "edges": []}
    (folder / "report.json").write_text(json.dumps({"loss": "ce", "seed": 1, "label_space": space}))
    (folder / "metrics.json").write_text('{"val_qwk": 0.5, "test_auroc": NaN, "test_qwk": null}')
    (folder / "report.html").write_text("<h1>ce</h1>")
    (folder / "confusion.csv").write_text("actual,predicted\nnone,none\nnone,NA\nNA,NA\nNA,NA\nnone,NA\n")
    return folder


def hand_over(report, tmp_path):
    things = [Thing(report), Thing(tmp_path / "page"), Thing(tmp_path / "m"), Thing(tmp_path / "c")]
    task_io.describe_report(*things)
    return things


def test_the_confusion_matrix_has_rows_of_actual_and_columns_of_predicted_classes_in_order(report, tmp_path):
    *_, confusion = hand_over(report, tmp_path)
    assert confusion.matrix.categories == ["none", "NA", "3"]
    assert confusion.matrix.rows == [[1, 2, 0], [0, 2, 0], [0, 0, 0]]


def test_metrics_that_are_no_numbers_are_left_out(report, tmp_path):
    _, _, metrics, _ = hand_over(report, tmp_path)
    assert metrics.metadata == {"val_qwk": 0.5}
    assert all(math.isfinite(v) for v in metrics.metadata.values())


def test_the_page_is_the_report(report, tmp_path):
    about, page, *_ = hand_over(report, tmp_path)
    assert (tmp_path / "page").read_text() == "<h1>ce</h1>"
    assert page.path == str(tmp_path / "page")
    assert about.metadata == {"loss": "ce", "seed": 1}


def test_a_report_without_a_confusion_table_has_no_matrix(report, tmp_path):
    (report / "confusion.csv").unlink()
    *_, confusion = hand_over(report, tmp_path)
    assert confusion.matrix is None
