"""What is claimed of the loss that validation chose, in which words, and what is recommended instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config.gate import AlarmConfig
from raregrade.evaluation.claim import verdict_of
from raregrade.evaluation.compare import compare_reports
from raregrade.evaluation.mrmc import Difference
from raregrade.evaluation.predictions import Predictions
from raregrade.evaluation.words import advice, alarm_texts, heading, looks_line, power_line, sentence_on_rules
from raregrade.labels import LabelSpace

Errors = dict[str, list[tuple[int, int]]]
Studies = dict[str, dict[str, Any]]
Compare = Callable[..., dict[str, Any]]
LEVEL = 1 - 0.95
NO_ALARMS = AlarmConfig(recall_floor=0.0, recall_drop=0.99)


def difference(mean: float, p: float | None) -> Difference:
    return Difference(mean, 0.1, 4.0, mean - 0.2, mean + 0.2, p, p is None, 0.0, 0.01, (0.0, 0.0))


@pytest.fixture
def compare(tmp_path: Path, report, graded, compare_section) -> Compare:
    """Compare models by their numbers of errors on validation and test, out of 200 images each; the first is ce."""

    def run(errors: Errors, *, metric: str = "accuracy", studies: Studies | None = None, **more: Any) -> dict[str, Any]:
        more.setdefault("alarms", NO_ALARMS)
        paths, seeds_of = [], {}
        for loss, models in errors.items():
            seeds_of[loss] = list(range(len(models)))
            tuned = (studies or {}).get(loss)
            paths += [report(loss, s, predictions=graded(*wrong), tuned=tuned) for s, wrong in enumerate(models)]
        section = compare_section(tuple(errors), seeds_of=seeds_of, metric=metric, **more)
        return compare_reports(paths, section, tmp_path / "out")

    return run


BASELINE = [(60, 60), (62, 58), (58, 62)]
BETTER = [(40, 20), (41, 22), (39, 21)]


@pytest.mark.parametrize(
    ("mean", "p", "metric", "verdict"),
    [
        (0.1, LEVEL, "test_qwk", "better"),
        (0.1, 0.051, "test_qwk", "not_distinguishable"),
        (-0.1, LEVEL, "test_qwk", "worse"),
        (-0.1, 0.051, "test_qwk", "contradicted"),
        (0.0, 1.0, "test_qwk", "not_distinguishable"),
        (-0.1, 0.05, "test_mae", "better"),
        (0.1, 0.05, "test_mae", "worse"),
        (0.1, 0.3, "test_mae", "contradicted"),
        (-0.1, 0.3, "test_mae", "not_distinguishable"),
        (0.1, None, "test_qwk", "untested"),
    ],
)
def test_the_verdict_follows_from_the_one_difference(mean: float, p: float | None, metric: str, verdict: str) -> None:
    found = verdict_of("cdw", "ce", difference(mean, p), metric=metric, confidence=0.95, losses=2)
    assert found == verdict


def test_the_verdict_without_a_difference_or_a_rival() -> None:
    assert verdict_of("cdw", "ce", None, metric="test_qwk", confidence=0.95, losses=2) == "untested"
    assert verdict_of("ce", "ce", None, metric="test_qwk", confidence=0.95, losses=2) == "baseline"
    assert verdict_of("ce", "ce", None, metric="test_qwk", confidence=0.95, losses=1) == "alone"


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_a_lead_that_stands_the_test_is_a_claim(compare: Compare, metric: str) -> None:
    result = compare({"ce": BASELINE, "cdw": BETTER}, metric=metric)
    assert result["clearly_better"]
    assert result["claim"]["metric"] == f"test_{metric}"
    sign = -1 if metric == "mae" else 1
    assert result["claim"]["difference"]["mean"] == pytest.approx(sign * 39 / 200)
    assert result["recommended"]["loss"] == "cdw"
    assert advice(result).startswith(f"Train with cdw: test {'MAE (lower is better)' if sign < 0 else 'accuracy'}")
    assert "clearly better than the baseline on the test split" in advice(result)


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_where_test_shows_the_opposite_the_first_sentence_says_so(compare: Compare, metric: str) -> None:
    result = compare({"ce": BASELINE, "cdw": [(40, 100), (41, 102), (39, 98)]}, metric=metric)
    assert result["winner"]["loss"] == "cdw"
    assert result["claim"]["verdict"] == "worse"
    assert advice(result).startswith("Test contradicts validation: cdw, which validation chose, is worse than ce")
    assert heading(result) == "Test contradicts validation: keep ce"
    assert result["recommended"]["loss"] == "ce"


def test_where_test_points_the_other_way_the_first_sentence_says_so(compare: Compare) -> None:
    result = compare({"ce": BASELINE, "cdw": [(40, 50), (41, 62), (39, 75)]})
    assert result["claim"]["verdict"] == "contradicted"
    assert advice(result).startswith("Test contradicts validation: cdw leads on validation (+0.100 over ce)")
    assert "The two cannot be distinguished. Keep ce." in advice(result)
    assert result["recommended"]["loss"] == "ce"


def test_a_contradiction_is_said_before_an_alarm(compare: Compare) -> None:
    """With 160 errors of 200 on test, each of the first 160 images is given another grade than its own."""
    result = compare({"ce": BASELINE, "cdw": [(40, 190), (41, 191), (39, 189)]}, alarms=AlarmConfig())
    assert result["losses"]["cdw"]["alarms"]
    assert advice(result).startswith("Test contradicts validation")
    assert "Alarm: cdw" in advice(result)


def test_a_lead_within_the_noise_is_not_called_better(compare: Compare) -> None:
    result = compare({"ce": BASELINE, "cdw": [(40, 58), (41, 60), (39, 59)]})
    assert result["claim"]["verdict"] == "not_distinguishable"
    assert advice(result).startswith("No loss is shown to be better than ce: cdw leads on validation (+0.100 over ce)")
    assert "on the test split the two cannot be distinguished" in advice(result)
    assert (result["winner"]["loss"], result["recommended"]["loss"]) == ("cdw", "ce")


def test_a_baseline_that_leads_within_the_noise_is_no_proof_either(compare: Compare) -> None:
    result = compare({"ce": BASELINE, "cdw": [(63, 60), (64, 62), (62, 61)]})
    assert (result["claim"]["verdict"], result["claim"]["tested"]) == ("baseline", "cdw")
    assert advice(result).startswith(
        "Keep ce, the baseline: no other loss did better on validation. That does not prove"
    )
    assert "the runner-up, cdw, cannot be distinguished from it" in advice(result)
    assert power_line(result).startswith("Power: with these patients and 3 seeds per loss, a true difference")


def test_a_baseline_is_called_ahead_where_the_test_split_shows_it(compare: Compare) -> None:
    result = compare({"ce": BETTER, "cdw": BASELINE, "lmf": [(90, 90), (91, 91), (92, 92)]})
    assert "on the test split the runner-up, cdw, is clearly worse" in advice(result)
    assert heading(result) == "Keep ce, the baseline"


def test_a_test_split_that_favours_the_runner_up_contradicts_too(compare: Compare) -> None:
    result = compare({"ce": BASELINE, "cdw": [(63, 20), (64, 22), (62, 21)]})
    assert advice(result).startswith(
        "Test contradicts validation, which chose ce, the baseline: on the test split the runner-up, cdw,"
    )
    assert result["recommended"]["loss"] == "ce"


def test_one_seed_claims_nothing_and_the_page_says_what_more_would_buy(compare: Compare) -> None:
    result = compare({"ce": BASELINE[:1], "cdw": BETTER[:1]})
    assert result["claim"]["verdict"] == "untested"
    assert result["claim"]["difference"]["p"] is None
    assert result["recommended"]["loss"] == "ce"
    assert advice(result).startswith("Nothing is claimed from one seed: cdw leads on validation (+0.100 over ce)")
    assert heading(result) == "cdw leads, but nothing is shown yet"
    line = power_line(result)
    assert "One seed cannot tell" in line
    # Student's t at 2 and at 4 degrees of freedom.
    assert (
        "With a second seed per loss, a difference of 4.3 standard errors could be claimed; a third lowers that to 2.8"
        in line
    )
    assert power_line(result, minutes=4.0).endswith(" One more for each of the two takes about 8 minutes of training.")


def test_one_seed_on_either_side_claims_nothing(compare: Compare) -> None:
    assert compare({"ce": BASELINE, "cdw": BETTER[:1]})["claim"]["verdict"] == "untested"


def test_models_that_do_not_vary_leave_nothing_to_test_with(compare: Compare) -> None:
    """Every image right for one loss, every image wrong for the other: no patient and no seed makes a difference."""
    result = compare({"ce": [(200, 200)] * 2, "cdw": [(0, 0)] * 2})
    assert result["claim"]["verdict"] == "untested"
    assert "neither patients nor seeds vary, so it cannot be tested" in advice(result)


def test_one_loss_alone_is_said_to_be_alone(compare: Compare) -> None:
    result = compare({"ce": BASELINE})
    assert result["claim"]["verdict"] == "alone"
    assert advice(result).startswith("Only ce was compared: val accuracy 0.700")
    assert power_line(result) == ""


def test_the_power_line_says_how_many_seeds_the_observed_difference_needs(compare: Compare) -> None:
    result = compare({"ce": [(60, 40), (62, 60), (58, 80)], "cdw": [(40, 30), (41, 50), (39, 70)]})
    reach = result["claim"]["power"]
    assert reach["seeds_needed"] > 3
    assert reach["detectable"] > result["claim"]["difference"]["mean"]
    needs = f"One as large as the observed +0.050 needs {reach['seeds_needed']} seeds per loss."
    assert power_line(result).endswith(needs)
    more = reach["seeds_needed"] - 3
    time = f"{2 * more * 30.0 / 60:.0f} hours"
    assert power_line(result, 30.0).endswith(f" {more} more for each of the two take about {time} of training.")


def test_an_alarm_stands_first_and_keeps_the_baseline(
    compare: Compare, report, graded, compare_section, tmp_path
) -> None:
    """cdw calls every severe image moderate, and is right about all others."""

    def blind(predictions: Predictions) -> Predictions:
        frame = predictions.frame.copy()
        severe = frame["target"] == 3
        frame.loc[severe, list(predictions.label_space.prob_columns)] = (0.1, 0.1, 0.7, 0.1)
        return Predictions(frame, predictions.label_space)

    paths = [report("ce", s, predictions=graded(80 + s, 80 + s)) for s in range(3)]
    paths += [report("cdw", s, predictions=blind(graded(s, s))) for s in range(3)]
    result = compare_reports(paths, compare_section(seeds=(0, 1, 2), metric="accuracy"), tmp_path / "out")
    assert result["claim"]["verdict"] == "better"
    kinds = {(a["kind"], a["split"], a["class_name"]) for a in result["losses"]["cdw"]["alarms"]}
    assert {("never_predicted", "val", "severe"), ("never_predicted", "test", "severe")} <= kinds
    assert advice(result).startswith("Alarm: cdw ")
    assert "severe" in advice(result).split(".", maxsplit=1)[0]
    assert "Train with" not in advice(result)
    assert advice(result).endswith("but an average cannot show what the alarm is about. Keep ce.")
    assert (result["winner"]["loss"], result["recommended"]["loss"]) == ("cdw", "ce")
    assert heading(result) == "cdw raises an alarm"
    shown = compare_section(seeds=(0, 1, 2), metric="accuracy", alarms=AlarmConfig(refuse=False))
    told = compare_reports(paths, shown, tmp_path / "shown")
    assert told["recommended"]["loss"] == "cdw"
    assert "Train with cdw" in advice(told)


def test_an_alarm_of_the_baseline_is_said_where_it_is_recommended(compare: Compare) -> None:
    result = compare(
        {"ce": [(190, 190), (191, 191)], "cdw": [(188, 189), (189, 190)]}, alarms=AlarmConfig(recall_floor=0.2)
    )
    assert result["losses"]["ce"]["alarms"]
    assert "Alarm: ce " in advice(result)
    assert heading(result) == "cdw and ce raise an alarm"


def test_one_alarm_a_class_is_said_and_that_of_the_test_split_first() -> None:
    alarms = [
        {"kind": "low_recall", "split": "val", "class_name": "a", "text": "finds a too rarely on val"},
        {"kind": "low_recall", "split": "test", "class_name": "a", "text": "finds a too rarely on test"},
        {"kind": "never_predicted", "split": "val", "class_name": "b", "text": "never predicts b"},
    ]
    assert alarm_texts(alarms) == ["never predicts b", "finds a too rarely on test"]


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"chosen": "tuned", "better": True, "trials": 30}, "cdw had 30 tuning trials and ce had none"),
        ({"chosen": "default", "better": False, "trials": 30}, "the study of cdw found no better settings"),
    ],
)
def test_a_tuned_loss_claims_nothing_where_the_comparison_is_not_fair(
    compare: Compare, study: dict[str, Any], said: str
) -> None:
    result = compare({"ce": BASELINE, "cdw": BETTER}, studies={"cdw": study})
    assert result["claim"]["verdict"] == "untested"
    assert advice(result).startswith(f"Nothing is claimed, because {said}: cdw leads on validation")
    assert result["recommended"]["loss"] == "ce"
    assert any("Studies used the validation split" in note for note in result["notes"])


def test_a_tuned_loss_may_be_better_than_a_tuned_baseline(compare: Compare) -> None:
    study = {"chosen": "tuned", "better": True, "trials": 30}
    studies = {"ce-tuned": study, "cdw-tuned": study}
    result = compare({"ce-tuned": BASELINE, "cdw-tuned": BETTER}, baseline="ce-tuned", studies=studies)
    assert result["clearly_better"]


def spread_out(predictions: Predictions) -> Predictions:
    """Every image has most of its probability on one side of the grade that is most probable."""
    frame = predictions.frame.copy()
    columns = list(predictions.label_space.prob_columns)
    targets = frame["target"].to_numpy()
    shapes = np.array([[0.6, 0.2, 0.1, 0.1], [0.35, 0.30, 0.25, 0.10], [0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.2, 0.6]])
    frame[columns] = shapes[targets]
    return Predictions(frame, predictions.label_space)


def test_a_lead_that_a_decision_rule_gives_any_loss_is_said(
    tmp_path: Path, report, graded, compare_section, ordinal: LabelSpace
) -> None:
    """Argmax calls every mild image none and every moderate one severe; the median gives each its own grade."""
    paths = [report("ce", s, predictions=spread_out(graded(0, 0))) for s in range(2)]
    paths += [report("cdw", s, predictions=graded(4 + s, 4 + s)) for s in range(2)]
    section = compare_section(seeds=(0, 1), alarms=NO_ALARMS)
    result = compare_reports(paths, section, tmp_path / "out")
    rules = result["losses"]["ce"]["rules"]
    assert rules["median"]["metrics"]["test_accuracy"] == 1
    assert rules["argmax"]["metrics"]["test_accuracy"] == 0.5
    under = result["losses"]["cdw"]["rules"]["median"]["difference"]["test_accuracy"]
    assert under["mean"] == pytest.approx(-4.5 / 200)
    assert sentence_on_rules(result).startswith(
        "ce decided at the median reaches test QWK 1.000: all of cdw's lead comes from the decision rule, which would "
        "help any loss."
    )
    assert "Decided alike, cdw is not shown to be better: at the median" in sentence_on_rules(result)
    for name in ("comparison.html", "table.md"):
        assert "ce decided at the median reaches" in (tmp_path / "out" / name).read_text().replace("&#39;", "'")


@pytest.mark.parametrize(("median", "share"), [(0.565, "most"), (0.580, "all"), (0.555, None)])
def test_the_share_of_a_lead_that_a_rule_gives_is_all_most_or_not_said(median: float, share: str | None) -> None:
    """cdw leads by 0.03: of 0.545, 0.565 is more than half of the way to 0.575, and 0.555 is not."""
    difference = {"mean": 0.03, "low": None, "high": None, "p": 0.4}
    comparison = {
        "claim": {"loss": "cdw", "baseline": "ce", "metric": "test_qwk", "verdict": "not_distinguishable"},
        "inference": {"confidence": 0.95},
        "losses": {
            "ce": {"metrics": {"test_qwk": {"mean": 0.545}}, "rules": {"median": {"metrics": {"test_qwk": median}}}},
            "cdw": {
                "metrics": {"test_qwk": {"mean": 0.575}},
                "rules": {"median": {"difference": {"test_qwk": difference}}},
            },
        },
    }
    said = sentence_on_rules(comparison)
    assert said == (
        f"ce decided at the median reaches test QWK {median:.3f}: {share} of cdw's lead comes from the decision "
        "rule, which would help any loss."
        if share
        else ""
    )


def test_a_lead_that_remains_under_every_rule_needs_no_sentence(compare: Compare) -> None:
    assert sentence_on_rules(compare({"ce": BASELINE, "cdw": BETTER})) == ""


def test_the_count_of_looks_is_said_from_the_second_on() -> None:
    comparison = {"unit": "images"}
    assert looks_line(comparison, None) == ""
    assert looks_line(comparison, 1) == "This is the first comparison made on this test split."
    assert looks_line(comparison, 3).startswith("This test split has been used by 3 comparisons, including this one.")
    assert "choosing on test images" in looks_line(comparison, 3)
