"""Step ``compare``: looks at the test split are counted, and what it logs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from raregrade.config import CompareSection
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig
from raregrade.evaluation.predictions import make_predictions, write_predictions
from raregrade.evaluation.report import Judged, judge, write_json
from raregrade.labels import LabelSpace
from raregrade.steps.compare import compare
from raregrade.tracking import Tracking
from raregrade.tracking.connection import connect

SPACE = LabelSpace("ordinal", ("none", "mild", "severe"))
DATASET = {"content_hash": "c" * 64, "dvc_md5": None, "source": "drawn", "num_images": 120}


def section(seeds: list[int]) -> CompareSection:
    config = CompareConfig(losses=["ce", "cdw"], seeds=seeds, baseline="ce")
    return CompareSection(compare=config, evaluate=EvaluateConfig(), alarms=AlarmConfig(), selection_metric="qwk")


def write_reports(folder: Path, seeds: list[int]) -> list[Path]:
    """Reports of two losses on 60 images of 30 patients a split."""
    paths = []
    rows = np.arange(120)
    targets = rows % 3
    for number, loss in enumerate(("ce", "cdw")):
        for seed in seeds:
            logits = np.random.default_rng([number, seed]).normal(size=(120, 3)) + 2 * np.eye(3)[targets]
            predictions = make_predictions(
                SPACE,
                image_id=[f"i{i}" for i in rows],
                group_id=[f"p{i // 2}" for i in rows],
                split=np.repeat(["val", "test"], 60),
                targets=targets,
                probs=np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
            )
            card = {"loss": {"name": loss, "kind": loss}, "seed": seed, "dataset": DATASET}
            metrics, content = judge(predictions, Judged(loss, card))
            path = folder / loss / str(seed)
            path.mkdir(parents=True)
            write_predictions(predictions, path / "predictions.parquet")
            write_json(path / "metrics.json", metrics)
            write_json(path / "report.json", content)
            paths.append(path)
    return paths


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("reports")
    return {"two": write_reports(folder / "two", [1, 2]), "one": write_reports(folder / "one", [1])}


def looks(out: Path) -> int | None:
    found: int | None = json.loads((out / "run.json").read_text())["test_looks"]
    return found


def test_the_same_comparison_again_is_no_new_look_and_gives_the_same_bytes(
    tmp_path: Path, reports: dict[str, list[Path]], no_tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        compare(section([1, 2]), reports["two"], Path(name), tracking=no_tracking)
    compare(section([1]), reports["one"], Path("c"), tracking=no_tracking)
    compare(section([1, 2]), reports["two"], Path("a"), tracking=no_tracking)
    assert [looks(Path(name)) for name in ("a", "b", "c")] == [2, 1, 2]
    assert Path("a/comparison.json").read_bytes() == Path("b/comparison.json").read_bytes()
    assert "used by 2 comparisons" in Path("c/comparison.html").read_text()
    assert "the first comparison made on this test split" in Path("b/comparison.html").read_text()
    assert Path(".raregrade/test-looks.json").is_file()


@pytest.mark.slow
def test_looks_of_other_machines_are_found_in_mlflow(
    tmp_path: Path, reports: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "grades")
    for machine in ("here", "there"):
        (tmp_path / machine).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    compare(section([1]), reports["one"], Path("a"), tracking=tracking)
    monkeypatch.chdir(tmp_path / "there")
    compare(section([1, 2]), reports["two"], Path("b"), tracking=tracking)
    assert (looks(tmp_path / "here" / "a"), looks(Path("b"))) == (1, 2)
    connection = connect(tracking.uri, "grades")
    runs = connection.client.search_runs([connection.experiment_id], "tags.`raregrade.step` = 'compare'")
    assert {run.data.tags["raregrade.test_split"] for run in runs} == {"c" * 64}
    assert len({run.data.tags["raregrade.look"] for run in runs}) == 2
    assert {run.data.params["verdict"] for run in runs} <= {
        "untested", "baseline", "not_distinguishable", "contradicted"
    }  # fmt: skip


def test_an_unwritable_ledger_costs_the_count_not_the_comparison(
    tmp_path: Path,
    reports: dict[str, list[Path]],
    no_tracking: Tracking,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAREGRADE_TEST_LOOKS", str(tmp_path / "file" / "looks.json"))
    with caplog.at_level(logging.WARNING):
        compare(section([1]), reports["one"], tmp_path / "out", tracking=no_tracking)
    assert looks(tmp_path / "out") is None
    assert "Looks at the test split are counted without this machine's ledger." in caplog.text
    assert "comparisons, including this one" not in (tmp_path / "out" / "comparison.html").read_text()
