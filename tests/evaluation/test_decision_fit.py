"""Decision rules that are chosen or fitted on validation patients, and never on test."""

from __future__ import annotations

import numpy as np
import pytest

from raregrade.config import EvaluateConfig
from raregrade.errors import ConfigError
from raregrade.evaluation.decision_fit import applicable_decisions, fit_decision
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import Predictions, make_predictions
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision

ORDINAL = LabelSpace("ordinal", ("none", "mild", "moderate", "severe"))
MULTILABEL = LabelSpace("multilabel", ("nodule", "mass"))
COSTS = [[float(abs(i - j)) for j in range(4)] for i in range(4)]


def ordinal(seed: int, *, images: int = 600, hedged: bool) -> Predictions:
    """Grades with noise; a hedged model puts its mode on the lowest grade while its median is right."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    seen = np.clip(targets + rng.choice([-1, 0, 1], images, p=[0.1, 0.8, 0.1]), 0, 3)
    near = [[1, 0, 0, 0], [0.42, 0.3, 0.28, 0], [0.42, 0, 0.3, 0.28], [0.1, 0.1, 0.1, 0.7]]
    probs = np.array(near if hedged else np.eye(4) * 0.92 + 0.02)[seen]
    return make_predictions(
        ORDINAL,
        image_id=[f"i{i}" for i in range(images)],
        group_id=[f"p{i // 2}" for i in range(images)],
        split=np.repeat(["val", "test"], images // 2),
        targets=targets,
        probs=probs / probs.sum(axis=1, keepdims=True),
    )


def flat(seed: int, images: int = 80) -> Predictions:
    """Validation images with flat probabilities, drawn towards the common grades."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    seen = targets + rng.normal(0, 0.8, images)
    probs = np.exp(-((seen[:, None] - np.arange(4)) ** 2) / 2) * [0.45, 0.25, 0.18, 0.12]
    return make_predictions(
        ORDINAL,
        image_id=[f"i{i}" for i in range(images)],
        group_id=[f"p{i}" for i in range(images)],
        split=["val"] * images,
        targets=targets,
        probs=probs / probs.sum(axis=1, keepdims=True),
    )


def multilabel(seed: int, images: int = 800, rare: float = 0.1) -> Predictions:
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, 2)) < [0.3, rare]).astype(float)
    probs = 1 / (1 + np.exp(-(2 * targets - 2.5 + rng.normal(0, 1, (images, 2)))))
    return make_predictions(
        MULTILABEL,
        image_id=[f"i{i}" for i in range(images)],
        group_id=[f"p{i}" for i in range(images)],
        split=np.repeat(["val", "test"], images // 2),
        targets=targets,
        probs=probs,
    )


def test_the_losses_own_rule_is_the_default() -> None:
    own = Decision("median")
    assert fit_decision(ordinal(0, hedged=False), EvaluateConfig(), own, "qwk").decision == own


def test_a_named_rule_is_taken_for_every_loss() -> None:
    found = fit_decision(ordinal(0, hedged=False), EvaluateConfig(decision="median"), Decision("argmax"), "qwk")
    assert found.decision == Decision("median")
    assert found.how == ""
    costly = EvaluateConfig(decision="expected_cost", costs=COSTS)
    assert fit_decision(ordinal(0, hedged=False), costly, Decision("argmax"), "qwk").decision.rule == "expected_cost"


def test_best_keeps_the_own_rule_where_no_other_leads_by_a_standard_error() -> None:
    found = fit_decision(ordinal(1, hedged=False), EvaluateConfig(decision="best"), Decision("argmax"), "qwk")
    assert found.decision == Decision("argmax")
    assert "no rule was better than argmax" in found.how


def test_best_keeps_its_rule_if_the_lead_hangs_on_one_patient() -> None:
    targets = np.arange(40) % 4
    probs = np.eye(4)[targets]
    doubtful = [1, 5, 0]  # two patients whose grade the median alone finds, and one whose grade argmax alone finds
    probs[doubtful] = [0.42, 0.3, 0.28, 0]
    predictions = make_predictions(
        ORDINAL,
        image_id=[f"i{i}" for i in range(40)],
        group_id=[f"p{i}" for i in range(40)],
        split=np.repeat("val", 40),
        targets=targets,
        probs=probs,
    )
    found = fit_decision(predictions, EvaluateConfig(decision="best"), Decision("argmax"), "mae")
    by_rule = [compute_metrics(targets, probs, ORDINAL, Decision(rule))["mae"] for rule in ("argmax", "median")]
    assert by_rule == [2 / 40, 1 / 40]
    assert found.decision == Decision("argmax")


@pytest.mark.parametrize("metric", ["qwk", "mae"])
def test_best_takes_a_rule_that_leads_clearly(metric: str) -> None:
    predictions = ordinal(2, hedged=True)
    found = fit_decision(predictions, EvaluateConfig(decision="best"), Decision("argmax"), metric)
    by_rule = {
        rule: compute_metrics(predictions.targets("val"), predictions.probs("val"), ORDINAL, Decision(rule))[metric]
        for rule in ("argmax", "median")
    }
    better = max if metric == "qwk" else min
    assert found.decision.rule == better(by_rule, key=by_rule.__getitem__)
    assert found.decision.rule == "median"
    assert dict(found.cross_validated)[metric] == pytest.approx(by_rule["median"], abs=0.05)


@pytest.mark.parametrize(
    ("seed", "taken"), [(0, "argmax"), (2, "argmax"), (4, "argmax"), (8, "median"), (10, "median")]
)
def test_a_lead_within_one_standard_error_changes_nothing(seed: int, taken: str) -> None:
    """The standard error is a bootstrap's, which shares nothing with the jackknife that decides."""
    predictions = flat(seed)
    targets, probs = predictions.targets("val"), predictions.probs("val")

    def lead(rows: np.ndarray) -> float:
        argmax, median = (
            compute_metrics(targets[rows], probs[rows], ORDINAL, Decision(rule))["qwk"] for rule in ("argmax", "median")
        )
        return median - argmax

    rng = np.random.default_rng(0)
    error = np.std([lead(rng.integers(0, 80, 80)) for _ in range(200)])
    assert (lead(np.arange(80)) > error) == (taken == "median")
    found = fit_decision(predictions, EvaluateConfig(decision="best"), Decision("argmax"), "qwk")
    assert found.decision == Decision(taken)


def test_images_of_a_patient_are_never_in_two_folds() -> None:
    """A second copy of each image, of the same patient, changes neither the rule nor what it is worth on others."""
    once = multilabel(4)
    copies = once.frame.loc[once.frame.index.repeat(2)].reset_index(drop=True)
    copies["image_id"] += np.where(copies.index % 2, "_copy", "")
    own = Decision("threshold", thresholds=(0.5, 0.5))
    for decision in ("f1", "youden"):
        config = EvaluateConfig(decision=decision)
        twice = fit_decision(Predictions(copies, MULTILABEL), config, own, "auroc")
        expected = fit_decision(once, config, own, "auroc")
        assert twice.decision == expected.decision
        assert dict(twice.cross_validated) == pytest.approx(dict(expected.cross_validated), abs=1e-12)


def test_scores_without_meaning_are_worth_nothing_on_other_patients() -> None:
    """Youden's index on the patients that a threshold was fitted to is high by luck; cross-validated it is zero."""
    own = Decision("threshold", thresholds=(0.5, 0.5))
    fitted, held_out = [], []
    for seed in range(20):
        frame = multilabel(seed, images=120, rare=0.3).frame
        frame[["prob_nodule", "prob_mass"]] = np.random.default_rng([1, seed]).random((120, 2))
        predictions = Predictions(frame, MULTILABEL)
        found = fit_decision(predictions, EvaluateConfig(decision="youden"), own, "auroc")
        value = dict(found.cross_validated)
        held_out.append(value["sensitivity"] + value["specificity"] - 1)
        truth = predictions.targets("val") == 1
        above = found.decision.decide(predictions.probs("val"))
        fitted += [above[truth[:, i], i].mean() - above[~truth[:, i], i].mean() for i in range(2)]
    assert np.mean(fitted) > 0.1
    assert abs(np.mean(held_out)) < 0.06


def test_labels_that_are_unknown_have_no_part_in_a_threshold() -> None:
    predictions = multilabel(5)
    frame = predictions.frame.copy()
    unknown = np.random.default_rng(1).random(len(frame)) < 0.3
    frame.loc[unknown, "target_mass"] = np.nan
    known = Predictions(frame[~unknown].reset_index(drop=True), MULTILABEL)
    own = Decision("threshold", thresholds=(0.5, 0.5))
    config = EvaluateConfig(decision="f1")
    with_gaps = fit_decision(Predictions(frame, MULTILABEL), config, own, "auroc").decision
    assert with_gaps.thresholds is not None
    assert with_gaps.thresholds[1] == fit_decision(known, config, own, "auroc").decision.thresholds[1]


def test_test_images_have_no_say_in_the_rule() -> None:
    predictions = ordinal(3, hedged=True)
    frame = predictions.frame.copy()
    test = frame["split"] == "test"
    frame.loc[test, "target"] = (frame.loc[test, "target"] + 2) % 4
    config = EvaluateConfig(decision="best")
    changed = fit_decision(Predictions(frame, ORDINAL), config, Decision("argmax"), "qwk")
    assert changed == fit_decision(predictions, config, Decision("argmax"), "qwk")


def test_the_threshold_of_each_label_maximises_its_f1_on_validation() -> None:
    predictions = multilabel(0)
    own = Decision("threshold", thresholds=(0.5, 0.5))
    found = fit_decision(predictions, EvaluateConfig(decision="f1"), own, "auroc").decision
    targets, probs = predictions.targets("val"), predictions.probs("val")
    assert found.thresholds is not None
    for i, name in enumerate(MULTILABEL.classes):
        reached = compute_metrics(targets, probs, MULTILABEL, found)[f"f1_{name}"]
        for cut in np.linspace(0.01, 0.99, 197):
            trial = list(found.thresholds)
            trial[i] = cut
            other = Decision("threshold", thresholds=tuple(trial))
            assert compute_metrics(targets, probs, MULTILABEL, other)[f"f1_{name}"] <= reached + 1e-12


def test_youden_maximises_sensitivity_plus_specificity() -> None:
    predictions = multilabel(1)
    own = Decision("threshold", thresholds=(0.5, 0.5))
    found = fit_decision(predictions, EvaluateConfig(decision="youden"), own, "auroc").decision
    truth, scores = predictions.targets("val")[:, 0] == 1, predictions.probs("val")[:, 0]

    def index(cut: float) -> float:
        return float((scores[truth] > cut).mean() - (scores[~truth] > cut).mean())

    assert found.thresholds is not None
    assert index(found.thresholds[0]) == pytest.approx(max(index(cut) for cut in np.linspace(0, 1, 2001)), abs=1e-9)


def test_a_wanted_sensitivity_is_reached_with_the_highest_threshold() -> None:
    predictions = multilabel(2)
    config = EvaluateConfig(decision="sensitivity", sensitivity=0.9)
    found = fit_decision(predictions, config, Decision("threshold", thresholds=(0.5, 0.5)), "auroc")
    truth, scores = predictions.targets("val")[:, 0] == 1, predictions.probs("val")[:, 0]
    assert found.decision.thresholds is not None
    cut = found.decision.thresholds[0]
    assert (scores[truth] > cut).mean() >= 0.9
    above = np.sort(scores[scores > cut])[0]
    assert (scores[truth] > above).mean() < 0.9
    assert dict(found.cross_validated)["sensitivity"] == pytest.approx(0.9, abs=0.06)


def test_a_wanted_sensitivity_that_can_be_reached_exactly_is_not_exceeded() -> None:
    scores = np.concatenate([np.linspace(0.05, 0.95, 10), np.linspace(0.02, 0.92, 10)])
    predictions = make_predictions(
        MULTILABEL,
        image_id=[f"i{i}" for i in range(20)],
        group_id=[f"p{i}" for i in range(20)],
        split=np.repeat("val", 20),
        targets=np.repeat([[1.0, 1.0], [0.0, 0.0]], 10, axis=0),
        probs=np.column_stack([scores, scores]),
    )
    config = EvaluateConfig(decision="sensitivity", sensitivity=0.9)
    found = fit_decision(predictions, config, Decision("threshold", thresholds=(0.5, 0.5)), "auroc").decision
    assert found.thresholds is not None
    assert (scores[:10] > found.thresholds[0]).mean() == 0.9


def test_each_label_may_want_a_sensitivity_of_its_own() -> None:
    predictions = multilabel(2, rare=0.3)
    own = Decision("threshold", thresholds=(0.5, 0.5))

    def fitted(wanted: float | dict[str, float]) -> tuple[float, ...]:
        config = EvaluateConfig(decision="sensitivity", sensitivity=wanted)
        thresholds = fit_decision(predictions, config, own, "auroc").decision.thresholds
        assert thresholds is not None
        return thresholds

    assert fitted({"mass": 0.8, "nodule": 0.95}) == (fitted(0.95)[0], fitted(0.8)[1])
    assert fitted({"mass": 0.8}) == (0.5, fitted(0.8)[1])
    config = EvaluateConfig(decision="sensitivity", sensitivity={"mass": 0.8})
    assert "one half for nodule" in fit_decision(predictions, config, own, "auroc").how
    config = EvaluateConfig(decision="sensitivity", sensitivity={"oedema": 0.8})
    with pytest.raises(ConfigError, match=r"evaluate\.sensitivity: oedema given; labels: nodule, mass"):
        fit_decision(predictions, config, own, "auroc")


@pytest.mark.parametrize("cost", [-1.0, float("inf"), float("nan")])
def test_costs_are_finite_and_not_negative(cost: float) -> None:
    with pytest.raises(ValueError, match=r"costs\.0\.1"):
        EvaluateConfig(decision="expected_cost", costs=[[0.0, cost], [1.0, 0.0]])


def test_a_label_with_too_few_patients_keeps_one_half_and_is_named() -> None:
    predictions = multilabel(3, rare=0.01)
    own = Decision("threshold", thresholds=(0.5, 0.5))
    found = fit_decision(predictions, EvaluateConfig(decision="f1"), own, "auroc")
    assert found.decision.thresholds is not None
    assert found.decision.thresholds[1] == 0.5
    assert "one half for mass: fewer than 8 validation patients" in found.how


def test_rules_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.decision: f1 is no rule for task ordinal; allowed: own, argmax"):
        fit_decision(ordinal(0, hedged=False), EvaluateConfig(decision="f1"), Decision("argmax"), "qwk")
    config = EvaluateConfig(decision="expected_cost", costs=[[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ConfigError, match="4 classes need 4 rows of 4 costs, got 2 rows"):
        fit_decision(ordinal(0, hedged=False), config, Decision("argmax"), "qwk")
    only_test = ordinal(0, hedged=False)
    only_test = Predictions(only_test.frame[only_test.frame["split"] == "test"].reset_index(drop=True), ORDINAL)
    with pytest.raises(ConfigError, match="best is fitted on split val"):
        fit_decision(only_test, EvaluateConfig(decision="best"), Decision("argmax"), "qwk")


def test_losses_are_compared_under_the_rules_that_need_no_fitting() -> None:
    assert list(applicable_decisions(ORDINAL, EvaluateConfig())) == ["argmax", "median"]
    assert list(applicable_decisions(ORDINAL, EvaluateConfig(costs=COSTS))) == ["argmax", "median", "expected_cost"]
    nominal = LabelSpace("multiclass", ("a", "b"))
    assert list(applicable_decisions(nominal, EvaluateConfig())) == ["argmax"]
    assert list(applicable_decisions(MULTILABEL, EvaluateConfig())) == ["threshold"]
