"""The report folder: its files, their content, and that nothing half-written or foreign is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raregrade.errors import DataError
from raregrade.evaluation import figures
from raregrade.evaluation.decision_fit import FittedDecision
from raregrade.evaluation.metrics import compute_metrics, confusion_matrix
from raregrade.evaluation.predictions import Predictions, make_predictions, read_predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

CARD = {
    "loss": {"name": "strong", "kind": "cdw_ce", "params": {"power": 2.0}},
    "seed": 3,
    "dataset": {"content_hash": "abc", "dvc_md5": None, "source": "phantom"},
    "model": "f00d",
    "git_commit": "1234",
    "train": {"epochs": 2},
}


def test_metrics_json_is_flat_sorted_and_what_is_returned(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    predictions = draw(ordinal)
    returned = write_report(predictions, tmp_path / "r", Judged("t", CARD))
    written = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert written == returned
    assert list(written) == sorted(written)
    expected = compute_metrics(predictions.targets("test"), predictions.probs("test"), ordinal)
    assert {n.removeprefix("test_"): v for n, v in written.items() if n.startswith("test_")} == expected
    assert not any(name.startswith("train_") for name in written)


def test_report_json_says_what_was_judged(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    write_report(draw(ordinal), tmp_path / "r", Judged("t", CARD))
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["loss"], report["kind"], report["seed"]) == ("strong", "cdw_ce", 3)
    assert (report["model"], report["git_commit"], report["dataset"]) == ("f00d", "1234", CARD["dataset"])
    assert LabelSpace.from_json(report["label_space"]) == ordinal
    found = report["intervals"]["test_qwk"]
    low, high = found["low"], found["high"]
    assert low < json.loads((tmp_path / "r" / "metrics.json").read_text())["test_qwk"] < high


def test_a_report_is_decided_by_the_rule_that_it_names(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    predictions = draw(ordinal, strength=1.0)
    median = Decision("median")
    fitted = FittedDecision(median, Decision("argmax"), "median was chosen", (("qwk", 0.5),))
    metrics = write_report(predictions, tmp_path / "r", Judged("t", decision=fitted))
    expected = compute_metrics(predictions.targets("test"), predictions.probs("test"), ordinal, median)
    assert (
        metrics["test_qwk"]
        == expected["qwk"]
        != compute_metrics(predictions.targets("test"), predictions.probs("test"), ordinal)["qwk"]
    )
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["decision"], report["own_decision"]) == ({"rule": "median"}, {"rule": "argmax"})
    table = pd.read_csv(tmp_path / "r" / "confusion.csv", keep_default_na=False)
    decided = median.decide(predictions.probs("test"))
    assert table["predicted"].tolist() == [ordinal.classes[i] for i in decided]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "decided by median (the rule of the loss is argmax)" in page
    assert "val, chosen on" in page
    assert "Median was chosen. Cross-validated within validation: QWK 0.500." in page


def test_alarms_and_warnings_stand_before_the_numbers(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    frame = draw(ordinal, images=600).frame.copy()
    frame["prob_none"] += frame["prob_severe"]
    frame["prob_severe"] = 0.0
    judged = Judged("t", data_warnings=["12 images are the same"])
    write_report(Predictions(frame, ordinal), tmp_path / "r", judged)
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.index("This model never predicts severe") < page.index('class="cards"')
    assert page.index("12 images are the same") < page.index('class="cards"')
    alarms = json.loads((tmp_path / "r" / "report.json").read_text())["alarms"]
    assert {(a["kind"], a["class_name"]) for a in alarms} == {("never_predicted", "severe")}
    assert {a["split"] for a in alarms} == {"val", "test"}


def test_a_class_shows_its_patients_and_too_few_give_no_interval(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    frame = draw(ordinal, images=240).frame
    severe = frame["target"] == 3
    few = frame[~severe | (frame["group_id"].isin(frame.loc[severe, "group_id"].unique()[:9]))]
    write_report(Predictions(few.reset_index(drop=True), ordinal), tmp_path / "r", Judged("t"))
    row = json.loads((tmp_path / "r" / "report.json").read_text())["classes"]["test"][3]
    held = few[(few["split"] == "test") & (few["target"] == 3)]
    assert row["positives"] == held["group_id"].nunique() < 8
    assert row["support"] == len(held)
    assert row["auroc_interval"] is None
    assert row["auroc_note"] == row["f1_note"] == "too few"
    assert row["recall_interval"] is not None
    assert "too few" in (tmp_path / "r" / "report.html").read_text()


def test_predictions_of_another_program_need_no_card(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    write_report(draw(ordinal), tmp_path / "r", Judged("theirs.csv"))
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["loss"], report["kind"], report["seed"]) == ("theirs.csv", "external", 1)


def test_the_predictions_of_a_report_are_read_back(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    predictions = draw(ordinal)
    write_report(predictions, tmp_path / "r", Judged("t"))
    read = read_predictions(tmp_path / "r" / "predictions.parquet", ordinal)
    pd.testing.assert_frame_equal(read.frame, predictions.frame)


def test_confusion_csv_has_one_row_a_test_image(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    predictions = draw(ordinal)
    write_report(predictions, tmp_path / "r", Judged("t"))
    table = pd.read_csv(tmp_path / "r" / "confusion.csv", keep_default_na=False)
    assert list(table.columns) == ["actual", "predicted"]
    counted = pd.crosstab(table["actual"], table["predicted"]).reindex(index=ordinal.classes, columns=ordinal.classes)
    expected = confusion_matrix(predictions.targets("test"), predictions.probs("test"), ordinal)
    np.testing.assert_array_equal(counted.fillna(0), expected)


def test_a_multilabel_report_counts_known_labels(tmp_path: Path, draw, multilabel: LabelSpace) -> None:
    predictions = draw(multilabel)
    metrics = write_report(predictions, tmp_path / "r", Judged("t"))
    assert {"test_auroc", "test_auroc_weighted", "test_macro_f1", "test_violation_rate"} <= set(metrics)
    table = pd.read_csv(tmp_path / "r" / "confusion.csv")
    assert len(table) == int((~np.isnan(predictions.targets("test"))).sum())
    row = json.loads((tmp_path / "r" / "report.json").read_text())["classes"]["test"][1]
    absent = table[(table["label"] == row["class"]) & (table["actual"] == "absent")]
    assert (row["threshold"], row["specificity"]) == (0.5, (absent["predicted"] == "absent").mean())
    low, high = row["specificity_interval"]
    assert 0 <= low <= row["specificity"] <= high <= 1
    mass = table[table["label"] == "mass"]
    hits = int(((mass["actual"] == "present") & (mass["predicted"] == "present")).sum())
    wrong = int((mass["actual"] != mass["predicted"]).sum())
    assert metrics["test_f1_mass"] == pytest.approx(2 * hits / (2 * hits + wrong))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    digests = []
    for name in ("a", "b"):
        write_report(draw(ordinal), tmp_path / name, Judged("t", CARD))
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        digests.append({p.relative_to(tmp_path / name): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert digests[0] == digests[1]
    assert {str(p) for p in digests[0]} >= {"metrics.json", "report.json", "confusion.csv", "figures/confusion.png"}


def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    space = LabelSpace("ordinal", ("<b>none</b>", "some & $1", "a lot"))
    n = 30
    predictions = make_predictions(
        space,
        image_id=[f"<img src=x>{i}" for i in range(n)],
        group_id=[f"p{i}" for i in range(n)],
        split=["test"] * n,
        targets=np.arange(n) % 3,
        probs=np.random.default_rng(0).dirichlet(np.ones(3), n),
    )
    write_report(predictions, tmp_path / "r", Judged("<script>alert(1)</script>"))
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for raw in ("<script", "<b>none", "<img src=x"):
        assert raw not in page
    assert "&lt;b&gt;none&lt;/b&gt;" in page
    assert page.count("data:image/png;base64,") == 4
    assert "http://" not in page
    assert "https://" not in page


def test_the_most_confident_errors_come_first(tmp_path: Path) -> None:
    space = LabelSpace("multiclass", ("cat", "dog"))
    probs = np.array([[0.99, 0.01], [0.4, 0.6], [0.95, 0.05], [0.2, 0.8]])
    predictions = make_predictions(
        space,
        image_id=["right", "mild_error", "worst_error", "bad_error"],
        group_id=list("abcd"),
        split=["test"] * 4,
        targets=np.array([0, 0, 1, 0]),
        probs=probs,
    )
    write_report(predictions, tmp_path / "r", Judged("t"))
    page = (tmp_path / "r" / "report.html").read_text()
    errors = page[page.index("Most confident errors") :]
    assert errors.index("worst_error") < errors.index("bad_error") < errors.index("mild_error")
    assert "right" not in errors[errors.index("<tbody>") : errors.index("</tbody>")]


def test_a_split_with_one_class_is_reported_without_what_is_undefined(tmp_path: Path, ordinal: LabelSpace) -> None:
    predictions = make_predictions(
        ordinal, image_id=["a", "b"], group_id=["p", "q"], split=["test"] * 2, targets=np.array([1, 1]),
        probs=np.eye(4)[[1, 1]],
    )  # fmt: skip
    metrics = write_report(predictions, tmp_path / "r", Judged("t"))
    assert "test_auroc" not in metrics
    assert "test_qwk" not in metrics
    assert metrics["test_accuracy"] == 1
    assert "There are none." in (tmp_path / "r" / "report.html").read_text()


def test_predictions_of_training_images_alone_are_refused(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    frame = draw(ordinal).frame
    only_train = Predictions(frame[frame["split"] == "train"].reset_index(drop=True), ordinal)
    with pytest.raises(DataError, match="no rows of split val or test"):
        write_report(only_train, tmp_path / "r", Judged("t"))


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"thesis\.tex.*would be lost"):
        write_report(draw(ordinal), tmp_path / "mine", Judged("t"))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_report_replaces_an_earlier_one(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".gitignore").write_text("/metrics.json")
    write_report(draw(ordinal), tmp_path / "r", Judged("first"))
    write_report(draw(ordinal), tmp_path / "r", Judged("second"))
    assert "second" in (tmp_path / "r" / "report.html").read_text()


def test_a_failure_leaves_the_earlier_report_and_no_remains(
    tmp_path: Path, draw, ordinal: LabelSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(draw(ordinal), tmp_path / "r", Judged("first"))
    monkeypatch.setattr(figures, "PALETTE", ())
    with pytest.raises(IndexError):
        write_report(draw(ordinal), tmp_path / "r", Judged("second"))
    assert json.loads((tmp_path / "r" / "report.json").read_text())["title"] == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
