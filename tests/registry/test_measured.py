"""The difference of two fixed models over patients, on numbers that can be reckoned by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from raregrade.config import AlarmConfig
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision
from raregrade.registry.gate import PairedDifference
from raregrade.registry.measured import Images, Measured, alarms_about, differences, held_against

SPACE = LabelSpace("ordinal", ("none", "mild", "severe"))
PATIENTS = 20
# Four images of each patient, all of one grade.
TARGETS = np.repeat(np.arange(PATIENTS) % 3, 4)
GROUPS = np.repeat([f"p{i}" for i in range(PATIENTS)], 4)


def _measured(name: str, right: npt.NDArray[np.bool_], decision: str = "argmax", splits: Any = ("test",)) -> Measured:
    """A model that is right about these images and one grade off about the others."""
    guess = np.where(right, TARGETS, np.where(TARGETS == 2, 1, TARGETS + 1))
    probs = 0.1 + 0.7 * np.eye(3)[guess]
    images = Images(TARGETS, GROUPS)
    return Measured(
        name,
        SPACE,
        Decision(decision),  # type: ignore[arg-type]
        dict.fromkeys(splits, images),
        dict.fromkeys(splits, probs),
    )


def _about_patients(*patients: int) -> npt.NDArray[np.bool_]:
    """Right about all but these."""
    return ~np.isin(np.repeat(np.arange(PATIENTS), 4), patients)


def test_the_error_of_a_difference_counts_patients_and_not_their_images() -> None:
    own = _measured("own", _about_patients(0, 1))
    other = _measured("other", _about_patients(2, 3, 4, 5, 6))
    of_patient = np.zeros(PATIENTS)
    of_patient[[0, 1]], of_patient[[2, 3, 4, 5, 6]] = -1, 1
    found = differences(own, other)["test_accuracy"]
    assert found.mean == pytest.approx(3 / 20)
    # Patients of equal size: the jackknife is the standard error of a mean.
    assert found.standard_error == pytest.approx(of_patient.std(ddof=1) / math.sqrt(PATIENTS))


def test_what_both_get_wrong_alike_adds_no_error() -> None:
    own, other = (_measured(name, _about_patients(0, 1, 2)) for name in ("own", "other"))
    assert set(differences(own, other).values()) == {PairedDifference(0.0, 0.0, None)}


def test_a_reference_holds_both_models_metrics_on_each_split() -> None:
    own = _measured("own", _about_patients(), splits=("val", "test"))
    other = _measured("the champion (version 3)", _about_patients(0), splits=("val", "test"))
    reference = held_against(own, other)
    assert reference.name == "the champion (version 3)"
    assert (reference.candidate["val_accuracy"], reference.metrics["test_accuracy"]) == (1.0, 0.95)
    assert {"val_qwk", "test_qwk", "val_mae", "test_f1_severe"} <= set(reference.differences)
    assert not reference.is_candidate


def test_one_patient_is_too_few_to_test_anything() -> None:
    images = Images(TARGETS[:8], np.array(["p0"] * 8))
    probs = {"test": 0.1 + 0.7 * np.eye(3)[TARGETS[:8]]}
    model = Measured("m", SPACE, Decision("argmax"), {"test": images}, probs)
    assert math.isnan(differences(model, model)["test_accuracy"].mean)


def test_each_model_is_decided_by_its_own_rule() -> None:
    """0.35, 0.25 and 0.4: most probable is the third grade, the median is the second."""
    probs = {"test": np.tile([0.35, 0.25, 0.4], (len(TARGETS), 1))}
    images = {"test": Images(TARGETS, GROUPS)}
    own, other = (Measured(rule, SPACE, Decision(rule), images, probs) for rule in ("argmax", "median"))  # type: ignore[arg-type]
    assert own.metrics["test_accuracy"] == pytest.approx((TARGETS == 2).mean())
    assert other.metrics["test_accuracy"] == pytest.approx((TARGETS == 1).mean())
    assert set(own.on_split("test").predicted) == {2}
    assert set(other.on_split("test").predicted) == {1}


def test_alarms_are_raised_on_every_split_and_against_the_reference() -> None:
    severe = np.flatnonzero(np.arange(PATIENTS) % 3 == 2)
    blind = _measured("blind", _about_patients(*severe), splits=("val", "test"))
    sound = _measured("the champion (version 3)", _about_patients(), splits=("val", "test"))
    texts = [alarm.text for alarm in alarms_about(blind, AlarmConfig(), sound) if alarm.kind == "never_predicted"]
    assert texts == [
        f"never predicts severe (24 {split} images have it; the champion (version 3) finds 24)"
        for split in ("val", "test")
    ]
    assert alarms_about(sound, AlarmConfig(), sound) == []
    assert [a.text for a in alarms_about(blind, AlarmConfig())] == [
        f"never predicts severe (24 {split} images have it)" for split in ("val", "test")
    ]
