"""The comparison: who wins, what is claimed, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.config import CompareConfig
from raregrade.errors import DataError
from raregrade.evaluation.compare import compare_reports
from raregrade.evaluation.predictions import Predictions, make_predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.evaluation.table import advice, format_table
from raregrade.labels import LabelSpace


def config(losses: tuple[str, ...] = ("ce", "cdw"), seeds: tuple[int, ...] = (1,), **more: Any) -> CompareConfig:
    return CompareConfig(losses=list(losses), seeds=list(seeds), baseline=more.pop("baseline", "ce"), resamples=200)


def compared(paths: list[Path], out: Path, settings: CompareConfig, metric: str = "qwk") -> dict[str, Any]:
    return compare_reports(paths, settings, metric, out)


def refusal(paths: list[Path], out: Path, settings: CompareConfig | None = None, metric: str = "qwk") -> str:
    with pytest.raises(DataError) as caught:
        compared(paths, out, settings or config(), metric)
    assert not out.exists()
    return str(caught.value)


def graded(space: LabelSpace, val_errors: int, test_errors: int) -> Predictions:
    """200 images a split, the first so many of which are one grade off."""
    targets = np.tile(np.arange(4), 100)
    split = np.repeat(["val", "test"], 200)
    position = np.arange(400) % 200
    wrong = position < np.where(split == "val", val_errors, test_errors)
    guess = np.where(wrong, np.where(targets == 3, 2, targets + 1), targets)
    return make_predictions(
        space,
        image_id=[f"{s}{i:03d}" for s, i in zip(split, position, strict=True)],
        group_id=[f"{s} patient {i // 2}" for s, i in zip(split, position, strict=True)],
        split=split,
        targets=targets,
        probs=np.full((400, 4), 0.1) + 0.6 * np.eye(4)[guess],
    )


def test_the_best_mean_on_validation_wins_and_its_best_seed_represents_it(tmp_path: Path, report) -> None:
    paths = [report(loss, s, strength=g) for loss, g in (("ce", 0.5), ("cdw", 3.0)) for s in (1, 2, 3)]
    result = compared(paths, tmp_path / "out", config(seeds=(1, 2, 3)))
    assert result["winner"]["loss"] == "cdw"
    value = result["losses"]["cdw"]["metrics"]["val_qwk"]
    assert value["mean"] == pytest.approx(np.mean(list(value["per_seed"].values())))
    assert value["sd"] == pytest.approx(np.std(list(value["per_seed"].values()), ddof=1))
    assert value["low"] < value["mean"] < value["high"]
    assert value["per_seed"][str(result["winner"]["seed"])] == max(value["per_seed"].values())
    assert result["clearly_better"]
    assert "clearly better than the baseline" in advice(result)


def test_the_test_split_has_no_say(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    paths = [
        report("ce", predictions=graded(ordinal, val_errors=40, test_errors=0)),
        report("cdw", predictions=graded(ordinal, val_errors=38, test_errors=100)),
    ]
    result = compared(paths, tmp_path / "out", config())
    assert result["winner"]["loss"] == "cdw"
    assert result["losses"]["cdw"]["difference"]["test_qwk"]["high"] < 0
    assert "On the test split, which had no say" in (tmp_path / "out" / "table.md").read_text()


def test_a_tie_goes_to_the_baseline_then_to_the_first_in_order(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    same = graded(ordinal, 20, 20)
    paths = [report(loss, predictions=same) for loss in ("a", "b")]
    paths.append(report("worse", predictions=graded(ordinal, 60, 20)))
    assert compared(paths, tmp_path / "1", config(("a", "b", "worse"), baseline="b"))["winner"]["loss"] == "b"
    assert compared(paths, tmp_path / "2", config(("b", "a", "worse"), baseline="worse"))["winner"]["loss"] == "b"


def test_a_lower_error_wins_where_lower_is_better(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    paths = [report("ce", predictions=graded(ordinal, 60, 60)), report("cdw", predictions=graded(ordinal, 10, 10))]
    result = compared(paths, tmp_path / "out", config(), "mae")
    assert result["winner"]["loss"] == "cdw"
    assert result["clearly_better"]
    assert "lower is better" in advice(result)


def test_an_unclear_lead_is_not_called_better(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    paths = [report("ce", predictions=graded(ordinal, 21, 21)), report("cdw", predictions=graded(ordinal, 20, 20))]
    result = compared(paths, tmp_path / "out", config())
    assert result["winner"]["loss"] == "cdw"
    assert not result["clearly_better"]
    assert advice(result).startswith("No loss is clearly better than ce. cdw leads on validation")


def test_the_baseline_may_win(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    paths = [report("ce", predictions=graded(ordinal, 5, 5)), report("cdw", predictions=graded(ordinal, 50, 50))]
    result = compared(paths, tmp_path / "out", config())
    assert result["winner"] == {"loss": "ce", "seed": 1}
    assert advice(result).startswith("Train with ce, the baseline")
    assert result["losses"]["ce"]["difference"] == {}


def test_a_paired_difference_is_surer_than_two_intervals(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    """Both models err on the same images, one on a few more: the intervals overlap, the difference is clear."""
    paths = [report("ce", predictions=graded(ordinal, 60, 60)), report("cdw", predictions=graded(ordinal, 46, 46))]
    losses = compared(paths, tmp_path / "out", config(), "accuracy")["losses"]
    assert losses["cdw"]["metrics"]["val_accuracy"]["low"] < losses["ce"]["metrics"]["val_accuracy"]["high"]
    assert losses["cdw"]["difference"]["val_accuracy"]["low"] > 0
    assert losses["cdw"]["difference"]["val_accuracy"]["mean"] == pytest.approx(14 / 200)


def test_adjusted_p_values_grow_with_the_number_of_losses(tmp_path: Path, report) -> None:
    paths = [report(loss, strength=g) for loss, g in (("ce", 1.0), ("cdw", 1.6), ("lmf", 1.1))]
    for entry in compared(paths, tmp_path / "out", config(("ce", "cdw", "lmf")))["losses"].values():
        for difference in entry["difference"].values():
            assert difference["p"] <= difference["p_holm"] <= min(1, 2 * difference["p"])


def test_the_order_of_rows_and_reports_does_not_matter(tmp_path: Path, report, draw, ordinal: LabelSpace) -> None:
    a, b = draw(ordinal, noise_seed=1), draw(ordinal, noise_seed=2)
    shuffled = Predictions(b.frame.sample(frac=1, random_state=0).reset_index(drop=True), ordinal)
    first = compared([report("ce", predictions=a), report("cdw", predictions=b)], tmp_path / "1", config())
    second = compared(
        [report("cdw", predictions=shuffled, folder="other"), report("ce", predictions=a)], tmp_path / "2", config()
    )
    assert list(first["losses"]) == list(second["losses"]) == ["ce", "cdw"]
    for loss in ("ce", "cdw"):
        for name, value in first["losses"][loss]["metrics"].items():
            assert second["losses"][loss]["metrics"][name]["low"] == pytest.approx(value["low"], abs=1e-12)


def test_every_file_is_written_and_agrees(tmp_path: Path, report) -> None:
    paths = [report(loss, s) for loss in ("ce", "cdw") for s in (1, 2)]
    result = compared(paths, tmp_path / "out", config(seeds=(1, 2)))
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == result
    assert list(written["losses"]) == ["ce", "cdw"]
    table = pd.read_csv(tmp_path / "out" / "table.csv", index_col="loss")
    assert table.loc["cdw", "val_qwk"] == pytest.approx(result["losses"]["cdw"]["metrics"]["val_qwk"]["mean"])
    assert table["winner"].sum() == 1
    assert pd.isna(table.loc["ce", "val_qwk_difference"])
    seeds = pd.read_csv(tmp_path / "out" / "per_seed.csv").set_index(["loss", "seed"])
    report_metrics = json.loads((paths[3] / "metrics.json").read_text())
    assert seeds.loc[("cdw", 2), "test_macro_f1"] == pytest.approx(report_metrics["test_macro_f1"])
    assert {p.name for p in (tmp_path / "out" / "figures").iterdir()} == {
        "forest_val.png",
        "forest_test.png",
        "class_f1.png",
    }
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert result["advice"].split("[")[0] in page


def test_the_terminal_table_is_aligned_and_marks_the_winner(tmp_path: Path, report) -> None:
    paths = [report(loss, strength=g) for loss, g in (("ce", 0.5), ("cdw", 3.0))]
    lines = format_table(compared(paths, tmp_path / "out", config())).splitlines()
    assert lines[0].split()[:3] == ["loss", "val", "QWK"]
    column = lines[0].index("vs ce")
    assert lines[2][column:].startswith("baseline")
    assert lines[3][column] == "+"
    assert [line[0] for line in lines[2:4]] == [" ", "*"]
    assert all(line.isascii() and len(line) < 130 for line in lines)


def test_one_seed_is_noted(tmp_path: Path, report) -> None:
    assert any("One seed" in n for n in compared([report("ce"), report("cdw")], tmp_path / "out", config())["notes"])


def test_different_training_settings_are_noted(tmp_path: Path, report) -> None:
    paths = [report("ce", train={"epochs": 1}), report("cdw", train={"epochs": 9})]
    notes = compared(paths, tmp_path / "out", config())["notes"]
    assert any("different training settings" in n for n in notes)


def test_external_predictions_are_listed_but_cannot_win(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    best = graded(ordinal, 0, 0)
    only_test = Predictions(best.frame[best.frame["split"] == "test"].reset_index(drop=True), ordinal)
    paths = [
        report("theirs", 9, predictions=only_test, kind="external", dataset=None),
        report("ce", predictions=graded(ordinal, 30, 30)),
        report("cdw", predictions=graded(ordinal, 10, 30)),
    ]
    result = compared(paths, tmp_path / "out", config())
    assert result["winner"]["loss"] == "cdw"
    assert result["losses"]["theirs"]["metrics"]["test_accuracy"]["mean"] == 1
    assert "val_accuracy" not in result["losses"]["theirs"]["metrics"]
    assert result["losses"]["theirs"]["difference"]["test_accuracy"]["mean"] == pytest.approx(30 / 200)
    assert "theirs" in format_table(result)
    assert "reference only" in (tmp_path / "out" / "comparison.html").read_text()


def test_external_predictions_that_the_settings_name_can_win(tmp_path: Path, report, ordinal: LabelSpace) -> None:
    paths = [
        report("ce", predictions=graded(ordinal, 30, 30), kind="external", dataset=None),
        report("cdw", predictions=graded(ordinal, 10, 10), kind="external", dataset=None),
    ]
    assert compared(paths, tmp_path / "out", config())["winner"]["loss"] == "cdw"


def test_whole_report_folders_compare(tmp_path: Path, draw, ordinal: LabelSpace) -> None:
    paths = [tmp_path / "reports" / loss for loss in ("ce", "cdw")]
    for i, path in enumerate(paths):
        card = {"loss": {"name": path.name, "kind": path.name}, "seed": 1}
        write_report(draw(ordinal, strength=1.0 + i), path, Judged(path.name, card))
    assert compared(paths, tmp_path / "out", config())["winner"]["loss"] == "cdw"


def test_multilabel_reports_compare(tmp_path: Path, report, draw, multilabel: LabelSpace) -> None:
    paths = [
        report("ce", predictions=draw(multilabel, noise_seed=1, strength=1.0)),
        report("cdw", predictions=draw(multilabel, noise_seed=2, strength=3.0)),
    ]
    result = compared(paths, tmp_path / "out", config(), "auroc")
    assert result["winner"]["loss"] == "cdw"
    assert "violation_rate" in result["headline"]


def test_reports_of_different_images_are_refused(tmp_path: Path, report, draw, ordinal: LabelSpace) -> None:
    a, b = draw(ordinal), draw(ordinal, noise_seed=1)
    fewer = Predictions(b.frame.drop(b.frame.index[b.frame["split"] == "test"][3]).reset_index(drop=True), ordinal)
    paths = [report("ce", predictions=a), report("cdw", predictions=fewer)]
    message = refusal(paths, tmp_path / "out")
    assert f"{paths[0]} and {paths[1]} judge different test images: 1 only in the first, such as images/" in message


@pytest.mark.parametrize("column", ["target", "group_id"])
def test_reports_with_different_targets_or_groups_are_refused(
    tmp_path: Path, report, draw, ordinal: LabelSpace, column: str
) -> None:
    a, b = draw(ordinal), draw(ordinal, noise_seed=1)
    frame = b.frame.copy()
    row = frame.index[frame["split"] == "val"][5]
    frame.loc[row, column] = (frame.loc[row, "target"] + 1) % 4 if column == "target" else "someone else"
    paths = [report("ce", predictions=a), report("cdw", predictions=Predictions(frame, ordinal))]
    message = refusal(paths, tmp_path / "out")
    what = "targets" if column == "target" else "groups"
    assert f"have different {what} for val image {frame.loc[row, 'image_id']}" in message


def test_reports_of_different_label_spaces_are_refused(tmp_path: Path, report, draw, ordinal: LabelSpace) -> None:
    other = LabelSpace("ordinal", ("none", "mild", "moderate", "worst"))
    paths = [report("ce"), report("cdw", predictions=draw(other))]
    message = refusal(paths, tmp_path / "out")
    assert f"{paths[0]} and {paths[1]} have different label spaces" in message
    assert "worst" in message


def test_reports_of_different_datasets_are_refused(tmp_path: Path, report) -> None:
    message = refusal([report("ce", dataset="aa"), report("cdw", dataset="bb")], tmp_path / "out")
    assert "different prepared datasets (aa, bb)" in message


def test_a_loss_and_seed_given_twice_is_refused(tmp_path: Path, report) -> None:
    paths = [report("ce"), report("cdw"), report("cdw", folder="again")]
    assert f"{paths[1]} and {paths[2]} are both loss cdw with seed 1" in refusal(paths, tmp_path / "out")


def test_a_missing_baseline_is_refused(tmp_path: Path, report) -> None:
    assert "no report of the baseline ce" in refusal([report("cdw")], tmp_path / "out")


def test_missing_seeds_are_refused_by_name(tmp_path: Path, report) -> None:
    paths = [report("ce", 1), report("ce", 2), report("cdw", 2)]
    assert "lacks the report (loss/seed) cdw/1" in refusal(paths, tmp_path / "out", config(seeds=(1, 2)))


def test_reports_of_losses_and_seeds_tried_earlier_are_left_out_and_said_to_be(tmp_path: Path, report) -> None:
    named = [report("ce"), report("cdw")]
    alone = compare_reports(named, config(), "qwk", tmp_path / "alone")
    beside = compare_reports([*named, report("lmf"), report("cdw", 5)], config(), "qwk", tmp_path / "beside")
    assert beside["losses"] == alone["losses"]
    assert any("lmf/1, cdw/5" in note for note in beside["notes"])


def test_a_candidate_without_validation_predictions_is_refused(tmp_path: Path, report, draw, ordinal) -> None:
    frame = draw(ordinal).frame
    only_test = Predictions(frame[frame["split"] == "test"].reset_index(drop=True), ordinal)
    message = refusal([report("ce"), report("cdw", predictions=only_test)], tmp_path / "out")
    assert "no predictions of the val split, on which the winner is chosen" in message


def test_metrics_that_are_not_of_the_predictions_are_refused(tmp_path: Path, report) -> None:
    paths = [report("ce"), report("cdw")]
    metrics = json.loads((paths[1] / "metrics.json").read_text())
    (paths[1] / "metrics.json").write_text(json.dumps(metrics | {"val_qwk": 0.99}))
    assert f"{paths[1]}: metrics.json says val_qwk = 0.99" in refusal(paths, tmp_path / "out")


def test_a_selection_metric_that_is_undefined_is_refused(tmp_path: Path, report) -> None:
    message = refusal([report("ce"), report("cdw")], tmp_path / "out", metric="violation_rate")
    assert "val_violation_rate is not defined" in message


def test_folders_that_are_no_reports_are_refused(tmp_path: Path, report) -> None:
    path = report("cdw")
    assert "report.json: no such file" in refusal([report("ce"), tmp_path / "nowhere"], tmp_path / "out")
    (path / "report.json").write_text("{")
    assert "report.json: cannot be read" in refusal([report("ce"), path], tmp_path / "out")
    (path / "report.json").write_text('{"loss": "cdw"}')
    assert "report.json: not a report" in refusal([report("ce"), path], tmp_path / "out")


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, report) -> None:
    paths = [report("ce"), report("cdw")]
    with pytest.raises(DataError, match="would be lost"):
        compared(paths, tmp_path, config())
    shutil.rmtree(paths[0])
    assert paths[1].is_dir()
