"""The comparison: what validation chooses, which model stands for a loss, what is written, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.config import CompareSection
from raregrade.errors import DataError
from raregrade.evaluation.compare import compare_reports
from raregrade.evaluation.predictions import Predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.labels import LabelSpace


def refusal(paths: list[Path], out: Path, section: CompareSection) -> str:
    with pytest.raises(DataError) as caught:
        compare_reports(paths, section, out)
    assert not out.exists()
    return str(caught.value)


def test_the_best_mean_on_validation_is_chosen(tmp_path: Path, report, graded, compare_section) -> None:
    """Each seed of cdw is better than the same seed of ce, but the single best model is one of ce."""
    errors = {"ce": (10, 80, 90), "cdw": (40, 42, 44)}
    paths = [
        report(loss, seed, predictions=graded(wrong, 20)) for loss in errors for seed, wrong in enumerate(errors[loss])
    ]
    result = compare_reports(paths, compare_section(seeds=(0, 1, 2)), tmp_path / "out")
    assert result["winner"]["loss"] == "cdw"
    value = result["losses"]["cdw"]["metrics"]["val_accuracy"]
    assert value["per_seed"] == pytest.approx({"0": 0.8, "1": 0.79, "2": 0.78})
    assert value["mean"] == pytest.approx(0.79)
    assert value["sd"] == pytest.approx(0.01)
    assert value["low"] < value["mean"] < value["high"]


def test_the_seed_of_median_validation_value_stands_for_a_loss(tmp_path: Path, report, graded, compare_section) -> None:
    errors = {"ce": (30, 10, 20), "cdw": (9, 8, 7)}
    paths = [
        report(loss, seed, predictions=graded(wrong, 20)) for loss in errors for seed, wrong in enumerate(errors[loss])
    ]
    result = compare_reports(paths, compare_section(seeds=(0, 1, 2)), tmp_path / "out")
    assert {loss: entry["representative"] for loss, entry in result["losses"].items()} == {"ce": 2, "cdw": 1}
    assert result["winner"]["seed"] == 1


def test_of_two_middle_seeds_the_worse_one_stands_for_the_loss(tmp_path: Path, report, graded, compare_section) -> None:
    """With 5, 20, 25 and 60 errors the middle models are those of 20 and 25; a higher error is the worse one."""
    paths = [report("ce", s, predictions=graded(wrong, 20)) for s, wrong in enumerate((60, 5, 25, 20))]
    for metric in ("qwk", "mae"):
        section = compare_section(("ce",), (0, 1, 2, 3), metric=metric)
        assert compare_reports(paths, section, tmp_path / metric)["losses"]["ce"]["representative"] == 2


def test_of_seeds_with_the_median_value_the_smallest_stands_for_the_loss(
    tmp_path: Path, report, graded, compare_section
) -> None:
    paths = [report("ce", s, predictions=graded(wrong, 20)) for s, wrong in ((7, 20), (3, 20), (5, 20))]
    section = compare_section(("ce",), (7, 3, 5))
    assert compare_reports(paths, section, tmp_path / "out")["losses"]["ce"]["representative"] == 3


def test_the_test_split_has_no_say_in_what_is_chosen(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [report("ce", predictions=graded(40, 0)), report("cdw", predictions=graded(38, 100))]
    result = compare_reports(paths, compare_section(), tmp_path / "out")
    assert result["winner"]["loss"] == "cdw"
    assert result["losses"]["cdw"]["difference"]["test_qwk"]["high"] < 0


def test_a_tie_goes_to_the_baseline_then_to_the_first_in_order(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [report(loss, predictions=graded(20, 20)) for loss in ("a", "b")]
    paths.append(report("worse", predictions=graded(60, 20)))
    first = compare_reports(paths, compare_section(("a", "b", "worse"), baseline="b"), tmp_path / "1")
    second = compare_reports(paths, compare_section(("b", "a", "worse"), baseline="worse"), tmp_path / "2")
    assert (first["winner"]["loss"], second["winner"]["loss"]) == ("b", "b")


def test_a_lower_error_is_chosen_where_lower_is_better(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [report("ce", predictions=graded(60, 60)), report("cdw", predictions=graded(10, 10))]
    assert compare_reports(paths, compare_section(metric="mae"), tmp_path / "out")["winner"]["loss"] == "cdw"


def test_a_paired_difference_is_surer_than_two_intervals(tmp_path: Path, report, graded, compare_section) -> None:
    """Both models err on the same images, one on a few more: the intervals overlap, the difference is clear."""
    paths = [report("ce", predictions=graded(60, 60)), report("cdw", predictions=graded(46, 46))]
    losses = compare_reports(paths, compare_section(metric="accuracy"), tmp_path / "out")["losses"]
    assert losses["cdw"]["metrics"]["val_accuracy"]["low"] < losses["ce"]["metrics"]["val_accuracy"]["high"]
    assert losses["cdw"]["difference"]["val_accuracy"]["low"] > 0
    assert losses["cdw"]["difference"]["val_accuracy"]["mean"] == pytest.approx(14 / 200)


def test_p_values_are_adjusted_for_the_number_of_losses(tmp_path: Path, report, compare_section) -> None:
    paths = [report(loss, seed, strength=g) for loss, g in (("ce", 1.0), ("cdw", 1.6), ("lmf", 1.1)) for seed in (1, 2)]
    losses = compare_reports(paths, compare_section(("ce", "cdw", "lmf"), (1, 2)), tmp_path / "out")["losses"]
    assert losses["ce"]["difference"] == {}
    for name in losses["cdw"]["difference"]:
        p = [losses[loss]["difference"][name]["p"] for loss in ("cdw", "lmf")]
        adjusted = [losses[loss]["difference"][name]["p_holm"] for loss in ("cdw", "lmf")]
        assert min(adjusted) == pytest.approx(min(1, 2 * min(p)))
        assert max(adjusted) == pytest.approx(max(*p, *adjusted))


def test_one_seed_gives_no_p_value(tmp_path: Path, report, compare_section) -> None:
    result = compare_reports([report("ce"), report("cdw", strength=3.0)], compare_section(), tmp_path / "out")
    for difference in result["losses"]["cdw"]["difference"].values():
        assert difference["p"] is difference["p_holm"] is difference["se"] is None
        assert difference["patients_only"]


def test_losses_may_have_different_numbers_of_seeds(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [report("ce", seed, predictions=graded(40 + seed, 40 + seed)) for seed in (1, 2, 3)]
    paths += [report("cdw", seed, predictions=graded(10, 9 + seed)) for seed in (8, 9)]
    section = compare_section(seeds=(1, 2, 3), seeds_of={"cdw": [8, 9]})
    result = compare_reports(paths, section, tmp_path / "out")
    assert (result["losses"]["ce"]["seeds"], result["losses"]["cdw"]["seeds"]) == ([1, 2, 3], [8, 9])
    difference = result["losses"]["cdw"]["difference"]["test_accuracy"]
    assert difference["mean"] == pytest.approx(42 / 200 - 17.5 / 200)
    assert difference["p"] is not None
    assert "2 and 3 seeds, a true difference" in (tmp_path / "out" / "comparison.html").read_text()


def test_external_predictions_may_have_any_seeds(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [report(loss, seed, predictions=graded(30, 30)) for loss in ("ce", "cdw") for seed in (1, 2)]
    paths += [report("theirs", s, predictions=graded(0, s), kind="external", dataset=None) for s in (4, 5, 6)]
    result = compare_reports(paths, compare_section(seeds=(1, 2)), tmp_path / "out")
    assert result["losses"]["theirs"]["seeds"] == [4, 5, 6]
    assert result["losses"]["theirs"]["difference"]["test_accuracy"]["p"] is not None


def test_the_order_of_rows_and_reports_does_not_matter(
    tmp_path: Path, report, draw, compare_section, ordinal: LabelSpace
) -> None:
    a, b = draw(ordinal, noise_seed=1), draw(ordinal, noise_seed=2)
    shuffled = Predictions(b.frame.sample(frac=1, random_state=0).reset_index(drop=True), ordinal)
    compare_reports([report("ce", predictions=a), report("cdw", predictions=b)], compare_section(), tmp_path / "1")
    others = [report("cdw", predictions=shuffled, folder="other"), report("ce", predictions=a)]
    compare_reports(others, compare_section(), tmp_path / "2")
    assert (tmp_path / "1" / "comparison.json").read_bytes() == (tmp_path / "2" / "comparison.json").read_bytes()


def test_positive_patients_stand_beside_the_metrics_of_a_class(tmp_path: Path, report, graded, compare_section) -> None:
    """Two images per patient, classes in turn: 100 patients, each grade in 50 of them."""
    paths = [report("ce", predictions=graded(20, 20)), report("cdw", predictions=graded(10, 10))]
    result = compare_reports(paths, compare_section(), tmp_path / "out")
    metrics = result["losses"]["cdw"]["metrics"]
    assert metrics["test_f1_severe"]["positives"] == metrics["test_auroc_severe"]["positives"] == 50
    assert metrics["test_qwk"]["positives"] is None
    assert result["positives"]["test"] == {"none": 50, "mild": 50, "moderate": 50, "severe": 50}
    rows = (tmp_path / "out" / "comparison.html").read_text().partition("F1 by class")[2]
    assert re.search(r"severe</td>\s*<td class=\"n\">50<", rows)


def test_groups_that_are_images_are_not_called_patients(tmp_path: Path, report, draw, compare_section, ordinal) -> None:
    def alone(noise_seed: int) -> Predictions:
        frame = draw(ordinal, noise_seed=noise_seed).frame
        return Predictions(frame.assign(group_id=frame["image_id"]), ordinal)

    result = compare_reports(
        [report("ce", predictions=alone(1)), report("cdw", predictions=alone(2))], compare_section(), tmp_path / "out"
    )
    assert result["unit"] == "images"
    for name in ("comparison.html", "table.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "patient" not in text
        assert "images" in text


def test_what_is_odd_about_the_data_stands_on_the_page_and_in_the_table(
    tmp_path: Path, report, compare_section
) -> None:
    odd = "12 identical images lie in train and test"
    paths = [report(loss, data_warnings=[odd]) for loss in ("ce", "cdw")]
    result = compare_reports(paths, compare_section(), tmp_path / "out")
    assert result["data_warnings"] == [odd]
    for name in ("comparison.html", "table.md"):
        assert odd in (tmp_path / "out" / name).read_text()


def test_every_file_is_written_and_agrees(tmp_path: Path, report, compare_section) -> None:
    paths = [report(loss, s) for loss in ("ce", "cdw") for s in (1, 2)]
    result = compare_reports(paths, compare_section(seeds=(1, 2)), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == result
    assert written["schema"] == 2
    assert list(written["losses"]) == ["ce", "cdw"]
    table = pd.read_csv(tmp_path / "out" / "table.csv", index_col="loss")
    assert table.loc["cdw", "val_qwk"] == pytest.approx(result["losses"]["cdw"]["metrics"]["val_qwk"]["mean"])
    assert table.index[table["chosen"]].tolist() == [result["winner"]["loss"]]
    assert table.index[table["recommended"]].tolist() == [result["recommended"]["loss"]]
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


def test_different_training_settings_are_noted(tmp_path: Path, report, compare_section) -> None:
    paths = [report("ce", train={"epochs": 1}), report("cdw", train={"epochs": 9})]
    notes = compare_reports(paths, compare_section(), tmp_path / "out")["notes"]
    assert any("different settings" in n for n in notes)


def test_external_predictions_are_listed_but_cannot_win(
    tmp_path: Path, report, graded, compare_section, ordinal: LabelSpace
) -> None:
    best = graded(0, 0)
    only_test = Predictions(best.frame[best.frame["split"] == "test"].reset_index(drop=True), ordinal)
    paths = [
        report("theirs", 9, predictions=only_test, kind="external", dataset=None),
        report("ce", predictions=graded(30, 30)),
        report("cdw", predictions=graded(10, 30)),
    ]
    result = compare_reports(paths, compare_section(), tmp_path / "out")
    assert result["winner"]["loss"] == "cdw"
    assert result["losses"]["theirs"]["metrics"]["test_accuracy"]["mean"] == 1
    assert "val_accuracy" not in result["losses"]["theirs"]["metrics"]
    assert result["losses"]["theirs"]["difference"]["test_accuracy"]["mean"] == pytest.approx(30 / 200)
    assert "reference only" in (tmp_path / "out" / "comparison.html").read_text()


def test_external_predictions_that_the_settings_name_can_win(tmp_path: Path, report, graded, compare_section) -> None:
    paths = [
        report("ce", predictions=graded(30, 30), kind="external", dataset=None),
        report("cdw", predictions=graded(10, 10), kind="external", dataset=None),
    ]
    assert compare_reports(paths, compare_section(), tmp_path / "out")["winner"]["loss"] == "cdw"


def test_whole_report_folders_compare(tmp_path: Path, draw, compare_section, ordinal: LabelSpace) -> None:
    paths = [tmp_path / "reports" / loss for loss in ("ce", "cdw")]
    for i, path in enumerate(paths):
        card = {"loss": {"name": path.name, "kind": path.name}, "seed": 1}
        write_report(draw(ordinal, strength=1.0 + i), path, Judged(path.name, card))
    assert compare_reports(paths, compare_section(), tmp_path / "out")["winner"]["loss"] == "cdw"


def test_multilabel_reports_compare(tmp_path: Path, report, draw, compare_section, multilabel: LabelSpace) -> None:
    paths = [
        report(loss, seed, predictions=draw(multilabel, noise_seed=10 * seed + i, strength=1.0 + 3 * i))
        for i, loss in enumerate(("ce", "cdw"))
        for seed in (1, 2, 3)
    ]
    result = compare_reports(paths, compare_section(seeds=(1, 2, 3), metric="auroc"), tmp_path / "out")
    assert result["winner"]["loss"] == "cdw"
    assert "violation_rate" in result["headline"]
    assert result["losses"]["cdw"]["difference"]["test_auroc"]["p"] < 0.05


def test_reports_of_different_images_are_refused(
    tmp_path: Path, report, draw, compare_section, ordinal: LabelSpace
) -> None:
    a, b = draw(ordinal), draw(ordinal, noise_seed=1)
    fewer = Predictions(b.frame.drop(b.frame.index[b.frame["split"] == "test"][3]).reset_index(drop=True), ordinal)
    paths = [report("ce", predictions=a), report("cdw", predictions=fewer)]
    message = refusal(paths, tmp_path / "out", compare_section())
    assert f"{paths[0]} and {paths[1]} judge different test images: 1 only in the first, such as images/" in message


@pytest.mark.parametrize("column", ["target", "group_id"])
def test_reports_with_different_targets_or_groups_are_refused(
    tmp_path: Path, report, draw, compare_section, column: str
) -> None:
    ordinal = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
    a, b = draw(ordinal), draw(ordinal, noise_seed=1)
    frame = b.frame.copy()
    row = frame.index[frame["split"] == "val"][5]
    frame.loc[row, column] = (frame.loc[row, "target"] + 1) % 4 if column == "target" else "someone else"
    paths = [report("ce", predictions=a), report("cdw", predictions=Predictions(frame, ordinal))]
    message = refusal(paths, tmp_path / "out", compare_section())
    what = "targets" if column == "target" else "groups"
    assert f"have different {what} for val image {frame.loc[row, 'image_id']}" in message


def test_reports_of_different_label_spaces_are_refused(tmp_path: Path, report, draw, compare_section) -> None:
    other = LabelSpace("ordinal", ("none", "mild", "moderate", "worst"))
    paths = [report("ce"), report("cdw", predictions=draw(other))]
    message = refusal(paths, tmp_path / "out", compare_section())
    assert f"{paths[0]} and {paths[1]} have different label spaces" in message
    assert "worst" in message


def test_reports_of_different_datasets_are_refused(tmp_path: Path, report, compare_section) -> None:
    message = refusal([report("ce", dataset="aa"), report("cdw", dataset="bb")], tmp_path / "out", compare_section())
    assert "different prepared datasets (aa, bb)" in message


def test_a_loss_and_seed_given_twice_is_refused(tmp_path: Path, report, compare_section) -> None:
    paths = [report("ce"), report("cdw"), report("cdw", folder="again")]
    message = refusal(paths, tmp_path / "out", compare_section())
    assert f"{paths[1]} and {paths[2]} are both loss cdw with seed 1" in message


def test_a_missing_baseline_is_refused(tmp_path: Path, report, compare_section) -> None:
    assert "no report of the baseline ce" in refusal([report("cdw")], tmp_path / "out", compare_section())


def test_missing_seeds_are_refused_by_name(tmp_path: Path, report, compare_section) -> None:
    paths = [report("ce", 1), report("ce", 2), report("cdw", 2)]
    message = refusal(paths, tmp_path / "out", compare_section(seeds=(1, 2)))
    assert "lacks the report (loss/seed) cdw/1" in message
    assert "compare.seeds_of" in message


def test_reports_of_earlier_losses_and_seeds_are_left_out_and_named(tmp_path: Path, report, compare_section) -> None:
    named = [report("ce"), report("cdw")]
    alone = compare_reports(named, compare_section(), tmp_path / "alone")
    beside = compare_reports([*named, report("lmf"), report("cdw", 5)], compare_section(), tmp_path / "beside")
    assert beside["losses"] == alone["losses"]
    assert any("lmf/1, cdw/5" in note for note in beside["notes"])


def test_a_candidate_without_validation_predictions_is_refused(
    tmp_path: Path, report, draw, compare_section, ordinal
) -> None:
    frame = draw(ordinal).frame
    only_test = Predictions(frame[frame["split"] == "test"].reset_index(drop=True), ordinal)
    message = refusal([report("ce"), report("cdw", predictions=only_test)], tmp_path / "out", compare_section())
    assert "no predictions of the val split, on which the winner is chosen" in message


def test_metrics_that_are_not_of_the_predictions_are_refused(tmp_path: Path, report, compare_section) -> None:
    paths = [report("ce"), report("cdw")]
    metrics = json.loads((paths[1] / "metrics.json").read_text())
    (paths[1] / "metrics.json").write_text(json.dumps(metrics | {"val_qwk": 0.99}))
    assert f"{paths[1]}: metrics.json says val_qwk = 0.99" in refusal(paths, tmp_path / "out", compare_section())


def test_metrics_decided_by_another_rule_than_the_report_names_are_refused(
    tmp_path: Path, report, compare_section
) -> None:
    paths = [report("ce"), report("cdw")]
    about: dict[str, Any] = json.loads((paths[1] / "report.json").read_text())
    (paths[1] / "report.json").write_text(json.dumps(about | {"decision": {"rule": "median"}}))
    assert f"{paths[1]}: metrics.json says val_qwk" in refusal(paths, tmp_path / "out", compare_section())


def test_a_selection_metric_that_is_undefined_is_refused(tmp_path: Path, report, compare_section) -> None:
    section = compare_section(metric="violation_rate")
    message = refusal([report("ce"), report("cdw")], tmp_path / "out", section)
    assert "val_violation_rate is not defined" in message


def test_folders_that_are_no_reports_are_refused(tmp_path: Path, report, compare_section) -> None:
    path = report("cdw")
    out, section = tmp_path / "out", compare_section()
    assert "report.json: no such file" in refusal([report("ce"), tmp_path / "nowhere"], out, section)
    (path / "report.json").write_text("{")
    assert "report.json: cannot be read" in refusal([report("ce"), path], out, section)
    (path / "report.json").write_text('{"loss": "cdw"}')
    assert "report.json: not a report of this version, it lacks 'label_space'; make it again" in refusal(
        [report("ce"), path], out, section
    )


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, report, compare_section) -> None:
    paths = [report("ce"), report("cdw")]
    with pytest.raises(DataError, match="would be lost"):
        compare_reports(paths, compare_section(), tmp_path)
    shutil.rmtree(paths[0])
    assert paths[1].is_dir()


def test_the_difference_is_that_of_every_patient_left_out_in_turn(
    tmp_path: Path, report, draw, compare_section, ordinal: LabelSpace
) -> None:
    """Obuchowski and Rockette by hand: a loop over patients, scikit-learn's kappa, sums over pairs of models."""
    from scipy.stats import t as student
    from sklearn.metrics import cohen_kappa_score

    drawn = {
        (loss, seed): draw(ordinal, noise_seed=10 * i + seed, strength=1.0 + 0.8 * i)
        for i, loss in enumerate(("ce", "cdw"))
        for seed in range(3)
    }
    paths = [report(loss, seed, predictions=p) for (loss, seed), p in drawn.items()]
    section = compare_section(seeds=(0, 1, 2), metric="qwk")
    found = compare_reports(paths, section, tmp_path / "out")["losses"]["cdw"]["difference"]["test_qwk"]

    def kappas(rows: np.ndarray) -> list[float]:
        decided = [(p.targets("test")[rows], p.probs("test")[rows].argmax(axis=1)) for p in drawn.values()]
        return [cohen_kappa_score(*pair, labels=range(4), weights="quadratic") for pair in decided]

    groups = drawn["ce", 0].groups("test")
    whole = np.array(kappas(np.ones(len(groups), dtype=bool)))
    left = np.array([kappas(groups != g) for g in np.unique(groups)])
    count = len(left)
    over_patients = (left - left.mean(0)).T @ (left - left.mean(0)) * (count - 1) / count
    same_loss = [over_patients[i, j] for i, j in ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5))]
    case = np.mean(same_loss[:3]) + np.mean(same_loss[3:]) - 2 * over_patients[:3, 3:].mean()
    a, b = whole[3:], whole[:3]
    variance = a.var(ddof=1) / 3 + b.var(ddof=1) / 3 + max(case, 0)
    assert found["mean"] == pytest.approx(a.mean() - b.mean())
    assert found["se"] == pytest.approx(np.sqrt(variance))
    assert found["p"] == pytest.approx(2 * student.sf(abs(found["mean"]) / found["se"], found["df"]))
