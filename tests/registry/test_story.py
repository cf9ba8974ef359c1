"""From predictions through the comparison into the registry: what is registered, and what its text says first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import AlarmConfig, CompareSection, GateRule
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, GateRefusedError
from raregrade.evaluation.compare import compare_reports
from raregrade.evaluation.predictions import make_predictions, write_predictions
from raregrade.evaluation.report import Judged, judge, write_json
from raregrade.models.folder import read_card
from raregrade.registry import list_models, promote, register_winner
from raregrade.registry.candidate import read_candidate
from raregrade.registry.gate import evaluate_gate
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client

MakeModel = Callable[..., Path]
NAME = "phantom-severity"
# As in the shipped params.yaml.
GATE = [GateRule(metric="val_qwk", threshold=0.4), GateRule(metric="test_qwk", superior=True)]
# 60, 40, 25 and 25 images of the grades in each split, one a patient.
TARGETS = np.repeat([0, 1, 2, 3], [60, 40, 25, 25])


def _guess(right: float, seed: int, blind: bool = False) -> np.ndarray[Any, Any]:
    """Grades that are right in that share of images and else one off; ``blind`` never says ``severe``."""
    rng = np.random.default_rng(seed)
    off = np.where(TARGETS == 0, 1, np.where(TARGETS == 3, 2, TARGETS + rng.choice([-1, 1], len(TARGETS))))
    guess = np.where(rng.random(len(TARGETS)) < right, TARGETS, off)
    return np.minimum(guess, 2) if blind else guess


def _report(folder: Path, model: Path, guesses: Sequence[np.ndarray[Any, Any]], dataset: PreparedDataset) -> Path:
    """What a comparison reads of a report, of guesses on val and on test."""
    splits = np.repeat(["val", "test"], len(TARGETS))
    names = [f"{split}{i}" for split in ("val", "test") for i in range(len(TARGETS))]
    predictions = make_predictions(
        dataset.label_space,
        image_id=names,
        group_id=[f"patient {name}" for name in names],
        split=splits,
        targets=np.concatenate([TARGETS, TARGETS]),
        probs=0.1 + 0.6 * np.eye(4)[np.concatenate(guesses)],
    )
    folder.mkdir(parents=True)
    metrics, report = judge(predictions, Judged("report", read_card(model)))
    write_predictions(predictions, folder / "predictions.parquet")
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "report.json", report)
    return folder


@pytest.fixture
def study(tmp_path: Path, dataset: PreparedDataset, make_model: MakeModel) -> Callable[..., Any]:
    """``study({loss: [(val guesses, test guesses) of each seed]})`` compares, and returns ``register``."""

    def run(guesses: Mapping[str, Sequence[Sequence[np.ndarray[Any, Any]]]], metric: str = "qwk") -> Any:
        models, reports = [], []
        for loss, seeds in guesses.items():
            for seed, both in enumerate(seeds, start=1):
                models.append(make_model(dataset, loss, seed))
                reports.append(_report(tmp_path / "reports" / loss / str(seed), models[-1], both, dataset))
        section = CompareSection(
            compare=CompareConfig(losses=list(guesses), seeds=list(range(1, 1 + len(guesses["ce"]))), baseline="ce"),
            evaluate=EvaluateConfig(),
            alarms=AlarmConfig(),
            selection_metric=metric,
        )
        compare_reports(reports, section, tmp_path / "comparison")

        def register(tracking: Tracking, **settings: Any) -> Any:
            settings = {"gate": GATE} | settings
            return register_winner(
                comparison=tmp_path / "comparison", models=models, data=None, name=NAME, tracking=tracking, **settings
            )

        return register

    return run


@pytest.fixture
def blind(study: Callable[..., Any]) -> Any:
    """The demo as it was: CDW-CE leads on validation with one seed and never predicts the worst grade."""
    return study(
        {
            "ce": [(_guess(0.55, 1), _guess(0.55, 2))],
            "cdw_ce": [(_guess(0.97, 3, blind=True), _guess(0.97, 4, blind=True))],
        }
    )


ALARM = "cdw_ce never predicts severe (25 test images have it; ce finds "


def test_a_leading_loss_that_misses_the_worst_grade_is_not_registered(blind: Any, tracking: Tracking) -> None:
    result = blind(tracking)
    assert (result.registered, result.loss, result.alarms) == (True, "ce", ())
    assert result.verdict.startswith("Alarm: cdw_ce never predicts severe")
    assert result.remarks[0].startswith(
        "ce, the baseline, is taken: cdw_ce, which validation chose, never predicts severe ("
    )
    assert result.remarks[0].endswith("and is not shown to be better")
    assert result.remarks[-1] == "test_qwk: the candidate is the baseline ce itself"

    description = open_client(tracking.uri).get_model_version(NAME, "1").description
    assert description.startswith("Alarm: cdw_ce never predicts severe")
    assert "Nothing is claimed from one seed" in description
    assert f"test_resnet trained with ce (seed 1), decided by argmax. test QWK {result.metrics['test_qwk']:.4f}" in (
        description
    )
    assert promote(NAME, "1", tracking=tracking, gate=GATE).moved


def test_the_best_on_validation_is_refused_with_the_alarm_first(blind: Any, tracking: Tracking) -> None:
    result = blind(tracking, when="best")
    assert (result.registered, result.version, result.loss) == (False, None, "cdw_ce")
    first, last = result.reasons
    assert first.startswith(ALARM)
    assert last == (
        "test_qwk is not shown to be better than that of the baseline ce: one seed does not tell how far training "
        "alone moves it; compare at least two seeds, better three"
    )
    assert not any("reaches the floor" in reason for reason in result.reasons)
    assert list_models(None, tracking) == []


def test_a_waived_alarm_opens_the_description_and_stops_promotion(blind: Any, tracking: Tracking) -> None:
    result = blind(tracking, when="best", gate=[], alarms=AlarmConfig(refuse=False))
    assert (result.registered, result.loss) == (True, "cdw_ce")
    (alarm,) = result.alarms
    assert alarm.startswith(ALARM)
    description = open_client(tracking.uri).get_model_version(NAME, "1").description
    assert description.startswith("Alarm: cdw_ce never predicts severe")
    assert description.count(alarm) == 2  # in the verdict, and among what was let pass
    with pytest.raises(GateRefusedError) as caught:
        promote(NAME, "1", tracking=tracking, gate=[])
    assert str(caught.value).splitlines()[1].startswith("  version 1 never predicts severe")


def _seeds(on_val: float, on_test: float, first: int) -> list[Sequence[np.ndarray[Any, Any]]]:
    return [(_guess(on_val, first + 2 * i), _guess(on_test, first + 2 * i + 1)) for i in range(3)]


@pytest.fixture
def doubtful(study: Callable[..., Any]) -> Any:
    """CDW-CE leads on validation; on test the two are as good as each other."""
    return study({"ce": _seeds(0.7, 0.7, 21), "cdw_ce": _seeds(0.8, 0.7, 31)})


def test_a_clearly_better_loss_is_registered_by_its_median_seed(study: Callable[..., Any], tracking: Tracking) -> None:
    result = study({"ce": _seeds(0.5, 0.5, 1), "cdw_ce": _seeds(0.85, 0.85, 11)})(tracking)
    assert (result.registered, result.loss, result.reasons) == (True, "cdw_ce", ())
    assert result.remarks[0] == (
        "cdw_ce is taken: validation chose it, and the test split shows it to be better than ce"
    )
    assert result.remarks[-1].startswith("test_qwk is better than that of the baseline ce: better by +0.")
    # No champion yet: the comparison's test, recorded beside the version, stands in.
    moved = promote(NAME, "1", tracking=tracking, gate=GATE)
    assert moved.moved
    assert moved.remarks[-1] == result.remarks[-1]


def test_the_registered_seed_is_the_one_of_median_validation_value(
    study: Callable[..., Any], tracking: Tracking
) -> None:
    rights = (0.95, 0.75, 0.85)
    cdw = [(_guess(right, 20 + i), _guess(0.85, 30 + i)) for i, right in enumerate(rights)]
    result = study({"ce": _seeds(0.4, 0.4, 1), "cdw_ce": cdw})(tracking)
    assert (result.loss, result.seed) == ("cdw_ce", 3)


def test_equally_good_losses_register_the_baseline_with_the_doubt(doubtful: Any, tracking: Tracking) -> None:
    result = doubtful(tracking)
    assert (result.registered, result.loss) == (True, "ce")
    assert result.remarks[0] == (
        "ce, the baseline, is taken: cdw_ce, which validation chose, is not shown to be better"
    )
    description = open_client(tracking.uri).get_model_version(NAME, "1").description
    assert "cannot be distinguished" in description.splitlines()[0]


def test_best_registers_what_leads_and_says_that_it_is_not_shown(doubtful: Any, tracking: Tracking) -> None:
    refused = doubtful(tracking, when="best")
    assert refused.reasons[0].startswith("test_qwk is not shown to be better than that of the baseline ce: better by ")
    result = doubtful(tracking, when="best", gate=GATE[:1])
    assert (result.registered, result.loss) == (True, "cdw_ce")
    assert result.remarks[0] == (
        "cdw_ce is taken because validation chose it, although it is not shown to be better than ce"
    )


def test_a_lead_over_a_baseline_that_was_not_tuned_is_no_test(
    dataset: PreparedDataset, compare: Callable[..., Any]
) -> None:
    def untuned(content: dict[str, Any]) -> None:
        content["claim"] |= {"verdict": "untested", "objection": "cdw_ce was given 30 trials of tuning, and ce none"}

    fair = compare(dataset, seeds=(1, 2))
    assert "test_qwk" in read_candidate(fair.comparison, fair.models).baseline.differences
    unfair = compare(dataset, seeds=(1, 2), edit=untuned)
    baseline = read_candidate(unfair.comparison, unfair.models, "best").baseline
    assert baseline.differences == {}
    assert evaluate_gate(GATE[1:], {}, baseline).refusals == (
        "test_qwk is not shown to be better than that of the baseline ce: "
        "cdw_ce was given 30 trials of tuning, and ce none",
    )


def test_a_comparison_of_another_version_of_raregrade_is_refused(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text('{"winner": {"loss": "ce", "seed": 1}}')
    with pytest.raises(DataError, match=r"schema None is not 2.*Run `raregrade compare` again"):
        read_candidate(tmp_path, [])
