"""Alarms: raised where patients leave no doubt, and not where a sound model had bad luck."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raregrade.config import AlarmConfig
from raregrade.evaluation.alarms import Alarm, ModelOnSplit, find_alarms, worst_first
from raregrade.labels import LabelSpace

GRADES = LabelSpace("ordinal", ("none", "mild", "severe"))
FINDINGS = LabelSpace("multilabel", ("edema", "nodule"))
# 40, 30 and 20 images of the three grades, one a patient.
TARGETS = np.repeat([0, 1, 2], [40, 30, 20])
PATIENTS = np.array([f"p{i}" for i in range(90)])
Array = npt.NDArray[Any]


def _model(predicted: Array, name: str = "ce", sure: float = 0.8) -> ModelOnSplit:
    """A model that gives what it predicts the probability ``sure`` and the rest to the others."""
    probs = np.full((len(predicted), 3), (1 - sure) / 2)
    probs[np.arange(len(predicted)), predicted] = sure
    return ModelOnSplit(name, probs, predicted)


def _alarms(predicted: Array, reference: Array | None = None, **settings: Any) -> list[Alarm]:
    groups = settings.pop("groups", PATIENTS)
    targets = settings.pop("targets", TARGETS)
    other = None if reference is None else _model(reference)
    config = AlarmConfig(**settings)
    return find_alarms(targets, _model(predicted, "cdw_ce"), groups, GRADES, config, split="test", reference=other)


def _texts(alarms: list[Alarm]) -> list[str]:
    return [alarm.text for alarm in alarms]


def _with_hits(found: dict[int, int]) -> Array:
    """Right but for the classes named, of which the first so many images are found and the rest called ``mild``."""
    predicted = TARGETS.copy()
    for of_class, hits in found.items():
        rows = np.flatnonzero(of_class == TARGETS)
        predicted[rows[hits:]] = 1
    return predicted


def test_a_model_that_finds_every_grade_raises_no_alarm() -> None:
    assert _alarms(TARGETS, reference=TARGETS) == []


def test_a_grade_never_predicted_is_named_with_what_the_baseline_finds() -> None:
    (first, *rest) = _alarms(_with_hits({2: 0}), reference=_with_hits({2: 12}))
    assert first == Alarm(
        "never_predicted", "test", "severe", "never predicts severe (20 test images have it; ce finds 12)"
    )
    assert [alarm.kind for alarm in rest] == ["recall_regression"]


def test_a_grade_that_is_never_predicted_needs_no_baseline_to_be_seen() -> None:
    assert _texts(_alarms(_with_hits({2: 0}))) == ["never predicts severe (20 test images have it)"]


def test_a_baseline_that_never_predicts_it_either_does_not_excuse_a_model() -> None:
    kinds = [alarm.kind for alarm in _alarms(_with_hits({2: 0}), reference=_with_hits({2: 0}))]
    assert kinds == ["never_predicted"]


@pytest.mark.parametrize(("images", "raised"), [(3, False), (4, True)])
def test_of_three_patients_none_found_may_be_bad_luck(images: int, raised: bool) -> None:
    targets = np.repeat([0, 1, 2], [50, 40 - images, images])
    assert bool(_alarms(np.minimum(targets, 1), targets=targets)) is raised


def test_many_images_of_two_patients_are_no_more_than_two_patients() -> None:
    groups = np.where(TARGETS == 2, np.where(np.arange(90) % 2, "a", "b"), PATIENTS)
    assert _alarms(_with_hits({2: 0}), groups=groups) == []


def test_a_grade_that_the_split_does_not_have_raises_no_alarm() -> None:
    targets = np.minimum(TARGETS, 1)
    assert _alarms(targets, targets=targets) == []


# Wilson's upper limits at 95 % of 1 and 2 of 40: 0.129 and 0.165; of 4 of 40: 0.231.
@pytest.mark.parametrize(("hits", "raised"), [(1, True), (2, True), (4, False)])
def test_a_recall_is_low_where_its_upper_limit_is_below_the_floor(hits: int, raised: bool) -> None:
    texts = _texts(_alarms(_with_hits({0: hits})))
    assert texts == ([f"finds {hits} of 40 test images with none, a recall below 0.2"] if raised else [])


def test_the_floor_is_a_setting() -> None:
    assert _alarms(_with_hits({0: 10}), recall_floor=0.0) == []
    assert [alarm.kind for alarm in _alarms(_with_hits({0: 10}), recall_floor=0.5)] == ["low_recall"]


def test_only_guarded_classes_are_watched_where_some_are_named() -> None:
    model = _with_hits({0: 1, 2: 0})
    assert [alarm.class_name for alarm in _alarms(model)] == ["severe", "none"]
    assert [alarm.class_name for alarm in _alarms(model, guard=["none", "mild"])] == ["none"]


# A sign test, one-sided, adjusted for three classes: 3 / 2^7 = 0.0234 is below 0.025, and 3 / 2^6 is not.
@pytest.mark.parametrize(("lost", "raised"), [(6, False), (7, True)])
def test_a_recall_fell_where_patients_lost_are_no_accident(lost: int, raised: bool) -> None:
    texts = _texts(_alarms(_with_hits({2: 20 - lost}), reference=TARGETS))
    assert texts == ([f"finds {20 - lost} of 20 test images with severe, ce 20"] if raised else [])


def test_patients_gained_count_against_patients_lost() -> None:
    rows = np.flatnonzero(TARGETS == 2)
    model, reference = TARGETS.copy(), TARGETS.copy()
    model[rows[:10]] = 1
    reference[rows[10:15]] = 1
    assert _alarms(model, reference=reference) == []


def test_a_drop_that_is_certain_but_small_is_no_alarm() -> None:
    lost = _with_hits({0: 32})  # 8 of 40: a drop of 0.2
    assert [alarm.class_name for alarm in _alarms(lost, reference=TARGETS)] == ["none"]
    assert _alarms(lost, reference=TARGETS, recall_drop=0.2) == []


def test_images_of_one_patient_that_are_lost_together_count_once() -> None:
    groups = np.where(TARGETS == 2, np.array([f"s{i // 4}" for i in range(90)]), PATIENTS)
    assert _alarms(_with_hits({2: 8}), reference=TARGETS, groups=groups) == []


def test_a_class_that_is_ranked_below_chance_is_named_with_its_auroc() -> None:
    probs = np.full((90, 3), 1 / 3)
    probs[:, 2] = np.where(TARGETS == 2, 0.1, 0.3) + np.linspace(0, 0.05, 90)
    probs[:, 0] = 1 - probs[:, 1] - probs[:, 2]
    model = ModelOnSplit("ce", probs, TARGETS)
    (alarm,) = find_alarms(TARGETS, model, PATIENTS, GRADES, AlarmConfig(), split="val")
    assert (alarm.kind, alarm.split, alarm.class_name) == ("auroc_below_chance", "val", "severe")
    assert alarm.text == "ranks val images with severe below those without (AUROC 0.00)"


def test_ranking_by_chance_is_not_ranking_below_chance() -> None:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.ones(3), 90)
    found = find_alarms(TARGETS, ModelOnSplit("ce", probs, TARGETS), PATIENTS, GRADES, AlarmConfig(), split="test")
    assert found == []


def test_probabilities_that_mislead_are_named_with_both_errors() -> None:
    """Right in 60 of 100 images: sure at 0.95 it is off by 0.35, at 0.6 not at all."""
    targets = np.tile([0, 1, 2, 0, 1], 20)
    predicted = np.where(np.arange(100) % 5 < 3, targets, (targets + 1) % 3)
    groups = np.arange(100).astype(str)
    sure, modest = _model(predicted, "cdw_ce", 0.95), _model(predicted, "ce", 0.6)
    config = AlarmConfig(recall_floor=0.0)
    found = find_alarms(targets, sure, groups, GRADES, config, split="test", reference=modest)
    assert _texts(found) == [
        "has misleading probabilities: on test they are off by 0.35 on average, those of ce by 0.00"
    ]
    assert found[0].class_name is None
    assert find_alarms(targets, modest, groups, GRADES, config, split="test", reference=sure) == []


def test_a_calibration_that_is_worse_by_less_than_a_tenth_is_no_alarm() -> None:
    targets = np.tile([0, 1, 2, 0, 1], 200)
    predicted = np.where(np.arange(1000) % 5 < 3, targets, (targets + 1) % 3)
    groups = np.arange(1000).astype(str)
    model, reference = _model(predicted, "cdw_ce", 0.69), _model(predicted, "ce", 0.6)
    assert find_alarms(targets, model, groups, GRADES, AlarmConfig(), split="test", reference=reference) == []


def test_a_finding_never_predicted_is_seen_among_known_labels() -> None:
    targets = np.zeros((60, 2), dtype=np.float32)
    targets[:10, 0] = 1
    targets[10:30, 0] = np.nan  # not known: neither found nor missed
    targets[::2, 1] = 1
    predicted = np.zeros((60, 2), dtype=bool)
    predicted[:, 1] = targets[:, 1] == 1
    probs = np.where(predicted, 0.9, 0.1) + np.where(np.nan_to_num(targets) == 1, 0.05, 0.0)
    groups = np.arange(60).astype(str)
    found = find_alarms(targets, ModelOnSplit("hbce", probs, predicted), groups, FINDINGS, AlarmConfig(), split="test")
    assert _texts(found) == ["never predicts edema (10 test images have it)"]


def test_alarms_are_sorted_by_how_bad_they_are() -> None:
    calibration = Alarm("calibration_worse", "val", None, "has misleading probabilities")
    regression = Alarm("recall_regression", "val", "mild", "finds less")
    never = Alarm("never_predicted", "test", "severe", "never predicts severe")
    assert worst_first([calibration, regression, never]) == [never, regression, calibration]


def test_an_alarm_survives_being_written() -> None:
    alarm = Alarm("calibration_worse", "val", None, "has misleading probabilities")
    assert Alarm.from_json(json.loads(json.dumps(alarm.to_json()))) == alarm


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, reference = rng.integers(0, 3, 90), np.where(rng.random(90) < 0.7, TARGETS, 0)
    groups = np.array([f"p{i // 2}" for i in range(90)])
    order = rng.permutation(90)
    straight = _alarms(model, reference=reference, groups=groups)
    mixed = _alarms(model[order], reference=reference[order], groups=groups[order], targets=TARGETS[order])
    assert straight == mixed


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_model_is_never_worse_than_itself(seed: int) -> None:
    predicted = np.random.default_rng(seed).integers(0, 3, 90)
    kinds = {alarm.kind for alarm in _alarms(predicted, reference=predicted)}
    assert not kinds & {"recall_regression", "calibration_worse"}


def _studies(rng: np.random.Generator, patients: int, miss: float) -> list[Alarm]:
    """Two models that find 65 % of each grade on new patients, of which the first misses ``miss`` of the severe more.

    Grades of a patient are alike, and so are the mistakes about a patient.
    """
    images = rng.integers(1, 5, patients)
    groups = np.repeat(np.arange(patients), images)
    grade = rng.choice(3, patients, p=[0.55, 0.3, 0.15])
    targets = np.repeat(grade, images)
    luck = np.repeat(rng.random((2, patients)), images, axis=1)
    own = np.where(rng.random((2, len(groups))) < 0.6, luck, rng.random((2, len(groups))))
    right = own < 0.65
    right[0] &= ~((targets == 2) & (rng.random(len(groups)) < miss))
    wrong = np.clip(targets + rng.choice([-1, 1], len(groups)), 0, 2)
    wrong = np.where(wrong == targets, (targets + 1) % 3, wrong)
    model, reference = (np.where(r, targets, wrong) for r in right)
    own, other = _model(model, "lmf", 0.65), _model(reference, "ce", 0.65)
    return find_alarms(targets, own, groups, GRADES, AlarmConfig(), split="test", reference=other)


@pytest.mark.parametrize("patients", [30, 100, 300])
def test_of_a_hundred_equally_good_models_few_raise_an_alarm(patients: int) -> None:
    rng = np.random.default_rng(11)
    raised = sum(bool(_studies(rng, patients, miss=0.0)) for _ in range(300))
    assert raised / 300 <= 0.05


def test_a_model_that_lost_the_worst_grade_raises_an_alarm_nearly_always() -> None:
    rng = np.random.default_rng(12)
    raised = sum("severe" in {a.class_name for a in _studies(rng, 150, miss=0.9)} for _ in range(100))
    assert raised >= 95
