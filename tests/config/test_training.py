"""Training settings that contradict each other or the loss are refused by key; those at the border are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import LossChoice, TrainConfig, TrainSection, load_params, params_from_dict, section
from raregrade.config.training import loss_problems, share_epochs
from raregrade.config.tuned import with_values
from raregrade.errors import ConfigError
from raregrade.losses import LOSSES

Change = Callable[[str, Any], dict[str, Any]]

# Each kind, with settings under which it corrects the class frequencies, and settings under which it does not.
CORRECTING: list[tuple[str, dict[str, Any]]] = [
    ("weighted_ce", {"weighting": "inverse"}),
    ("weighted_ce", {"weighting": "complement"}),
    ("effective_number", {"beta": 0.9}),
    ("balanced_softmax", {"tau": 0.5}),
    ("focal", {"weighting": "inverse"}),
    ("drw", {"start": 0.5}),
    ("lmf", {"weighting": "margin"}),
    *(("two_stage", {"classifier": name}) for name in ("crt", "balanced_softmax", "tau_norm", "lws")),
    ("weighted_bce", {"max_weight": 10.0}),
]
NEUTRAL: list[tuple[str, dict[str, Any]]] = [
    ("ce", {}),
    ("effective_number", {"beta": 0.0}),
    ("balanced_softmax", {"tau": 0.0}),
    ("focal", {"weighting": "none"}),
    ("ldam", {}),
    ("drw", {"beta": 0.0}),
    ("lmf", {"weighting": "none"}),
    ("cdw_ce", {}),
    ("coral", {}),
    ("corn", {}),
    ("dlordinal", {}),
    ("bce", {}),
    ("weighted_bce", {"max_weight": 1.0}),
    ("focal_bce", {}),
    ("asymmetric_bce", {}),
    ("hbce", {}),
]


def choice(kind: str, **params: Any) -> LossChoice:
    return LossChoice(name="mine", kind=kind, params=LOSSES[kind](**params))


def refused(train: dict[str, Any], said: str) -> None:
    raw = {
        "data": {"source": "folder", "path": "images", "task": "ordinal", "classes": ["a", "b", "c"]},
        "losses": {"ce": {}},
        "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce"},
        "train": train,
    }
    with pytest.raises(ConfigError) as caught:
        params_from_dict(raw)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 1, "one problem, one line"
    assert lines[0].strip().startswith(said)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"lr": 1e-3, "lr_min": 2e-3}, "train.lr_min = 0.002: is above train.lr = 0.001"),
        ({"lr": 1e-3, "lr_min": 2e-3, "schedule": "constant"}, "train.lr_min = 0.002: is above"),
        ({"lr": 1e-3, "lr_min": 1e-3}, "train.lr_min = 0.001: is train.lr, so the cosine schedule has nothing to"),
        ({"epochs": 5, "warmup_epochs": 5.0}, "train.warmup_epochs = 5: the warm-up would not end"),
        ({"epochs": 1, "warmup_epochs": 1.0}, "train.warmup_epochs = 1: the warm-up would not end"),
        (
            {"epochs": 5, "schedule": "step", "lr_epochs": 5},
            "train.lr_epochs = 5: the step schedule would never lower the learning rate within train.epochs = 5. "
            "Set train.lr_epochs to 4 at most",
        ),
        ({"epochs": 20, "schedule": "step"}, "train.lr_epochs = 30: the step schedule would never"),
        (
            {"epochs": 8, "schedule": "plateau", "lr_epochs": 6},
            "train.lr_epochs = 6: the plateau schedule would never lower the learning rate within train.epochs = 8. "
            "Set train.lr_epochs to 5 at most",
        ),
        ({"epochs": 2, "schedule": "plateau", "lr_epochs": 1}, "train.lr_epochs = 1: the plateau schedule would never"),
        (
            {"epochs": 10, "early_stopping": 9},
            "train.early_stopping = 9: can never end a training of train.epochs = 10",
        ),
        (
            {"epochs": 50, "schedule": "plateau", "lr_epochs": 5, "early_stopping": 6},
            "train.early_stopping = 6: ends the training before the plateau schedule",
        ),
        (
            {"batch_size": 32, "accumulate": 5},
            "train.accumulate = 5: train.batch_size = 32 doesn't divide into so many equal forward passes. "
            "Set train.batch_size=30",
        ),
        ({"batch_size": 2, "accumulate": 4}, "train.accumulate = 4: train.batch_size = 2 doesn't divide"),
    ],
)
def test_settings_of_no_effect_or_sense_are_refused_with_their_key(train: dict[str, Any], said: str) -> None:
    refused(train, said)


@pytest.mark.parametrize(
    "train",
    [
        {"lr": 1e-3, "lr_min": 9e-4},
        {"lr": 1e-3, "lr_min": 1e-3, "schedule": "constant"},
        {"epochs": 5, "warmup_epochs": 4.5},
        {"epochs": 5, "schedule": "step", "lr_epochs": 4},
        {"epochs": 8, "schedule": "plateau", "lr_epochs": 5},
        {"epochs": 10, "early_stopping": 8},
        {"epochs": 50, "schedule": "plateau", "lr_epochs": 5, "early_stopping": 7},
        {"batch_size": 32, "accumulate": 32},
        {"epochs": 1},
    ],
)
def test_settings_just_within_the_limits_are_taken(train: dict[str, Any]) -> None:
    assert TrainConfig(**train).model_dump().items() >= train.items()


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0.5), (2, 1.0), (20, 1.0)])
def test_the_default_warm_up_ends_within_any_number_of_epochs(epochs: int, expected: float) -> None:
    assert TrainConfig(epochs=epochs).warmup_epochs == expected
    assert TrainConfig(epochs=epochs, warmup_epochs=0.25).warmup_epochs == 0.25


def test_every_problem_of_the_training_is_a_line_with_its_origin(tmp_path: Any, valid: Any) -> None:
    import yaml

    (tmp_path / "params.yaml").write_text(yaml.safe_dump(valid))
    (tmp_path / "preset.yaml").write_text("train: {lr_min: 1.0, epochs: 5}\n")
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml", ["train.accumulate=3"], [tmp_path / "preset.yaml"])
    accumulate, lr_min = str(caught.value).splitlines()[1:]
    assert accumulate.startswith("  train.accumulate = 3:")
    assert accumulate.endswith("(given by --set)")
    assert lr_min.startswith("  train.lr_min = 1:")
    assert lr_min.endswith(f"(set in {tmp_path / 'preset.yaml'})")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train.lr": 1e-5}, "train.lr_min = 0.0001: is above train.lr = 1e-05"),
        ({"train.warmup_epochs": 20.0}, "train.warmup_epochs = 20: the warm-up would not end"),
        ({"train.batch_size": 33}, "train.accumulate = 2: train.batch_size = 33 doesn't divide"),
    ],
)
def test_tuned_values_are_held_to_the_same_rules(values: dict[str, Any], said: str) -> None:
    plain = TrainSection(train=TrainConfig(lr_min=1e-4, accumulate=2), loss=choice("ce"))
    with pytest.raises(ConfigError) as caught:
        with_values(plain, values)
    heading, line = str(caught.value).splitlines()
    assert heading == "parameters of mine are wrong:"
    assert line.startswith(f"  {said}")


@pytest.mark.parametrize(("kind", "params"), CORRECTING)
def test_class_balanced_sampling_is_refused_with_a_loss_that_corrects_too(kind: str, params: dict[str, Any]) -> None:
    balanced = TrainConfig(sampler="class_balanced")
    (problem,) = loss_problems(balanced, choice(kind, **params))
    assert problem.startswith(
        "train.sampler = class_balanced: shows every class equally often, and the loss mine makes"
    )
    assert "Set train.sampler=shuffle" in problem
    assert loss_problems(TrainConfig(), choice(kind, **params)) == []


@pytest.mark.parametrize(("kind", "params"), NEUTRAL)
def test_class_balanced_sampling_is_taken_with_any_other_loss(kind: str, params: dict[str, Any]) -> None:
    assert loss_problems(TrainConfig(sampler="class_balanced"), choice(kind, **params)) == []


def test_every_loss_is_known_to_correct_frequencies_or_not() -> None:
    assert {kind for kind, _ in NEUTRAL} | {kind for kind, _ in CORRECTING} == set(LOSSES)


def test_the_check_covers_the_losses_of_comparison_and_tuning_alone(changed: Change, valid: dict[str, Any]) -> None:
    changed("train.sampler", "class_balanced")
    changed("losses.balanced_softmax", {})
    params = params_from_dict(valid)
    with pytest.raises(ConfigError, match=r"train\.sampler = class_balanced: .* the loss balanced_softmax"):
        section(params, "train", "balanced_softmax")
    with pytest.raises(ConfigError, match=r"train\.sampler = class_balanced: .* the loss balanced_softmax"):
        params_from_dict(changed("tune.losses", ["balanced_softmax"]))
    changed("tune.losses", [])
    with pytest.raises(ConfigError, match=r"train\.sampler = class_balanced: .* the loss balanced_softmax"):
        params_from_dict(changed("compare.losses", ["ce", "balanced_softmax"]))


@pytest.mark.parametrize(
    ("kind", "params", "train", "said"),
    [
        (
            "two_stage",
            {"images_per_class": 17},
            {"batch_size": 32},
            "losses.mine.images_per_class = 17: train.batch_size = 32 doesn't hold two classes of so many images, "
            "which a metric loss compares. Set losses.mine.images_per_class=16 or less, or train.batch_size=34 or more",
        ),
        (
            "two_stage",
            {"images_per_class": 4},
            {"batch_size": 16, "accumulate": 4},
            "losses.mine.images_per_class = 4: train.batch_size = 16 in 4 forward passes doesn't hold",
        ),
        ("two_stage", {"images_per_class": 2}, {"batch_size": 2}, "losses.mine.images_per_class = 2: train.batch_size"),
        ("two_stage", {}, {"epochs": 1}, "train.epochs = 1: training in 2 stages takes at least one epoch for each"),
        (
            "two_stage",
            {"classifier_share": 0.5},
            {"epochs": 20, "schedule": "step", "lr_epochs": 10},
            "train.lr_epochs = 10: the step schedule would never lower the learning rate of mine, whose longest stage "
            "has 10 of the 20 epochs",
        ),
        ("drw", {}, {"epochs": 4}, "losses.mine.start = 0.8: with train.epochs = 4 no epoch begins after so much"),
        ("drw", {"start": 1.0}, {"epochs": 50}, "losses.mine.start = 1: with train.epochs = 50 no epoch begins"),
    ],
)
def test_what_a_loss_cannot_do_under_the_training_is_refused(
    kind: str, params: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    (problem,) = loss_problems(TrainConfig(**train), choice(kind, **params))
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("kind", "params", "train"),
    [
        ("two_stage", {"images_per_class": 16}, {"batch_size": 32}),
        ("two_stage", {"images_per_class": 64, "metric_weight": 0.0}, {"batch_size": 32}),
        ("two_stage", {"classifier": "tau_norm"}, {"epochs": 1}),
        ("two_stage", {"classifier_share": 0.5}, {"epochs": 20, "schedule": "step", "lr_epochs": 9}),
        ("drw", {}, {"epochs": 5}),
        ("drw", {"start": 0.0}, {"epochs": 1}),
    ],
)
def test_what_a_loss_can_just_do_under_the_training_is_taken(
    kind: str, params: dict[str, Any], train: dict[str, Any]
) -> None:
    assert loss_problems(TrainConfig(**train), choice(kind, **params)) == []


@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(any), extra=st.integers(0, 40))
def test_stages_share_the_epochs_and_each_with_a_share_gets_one(shares: list[float], extra: int) -> None:
    trained = sum(share > 0 for share in shares)
    dealt = share_epochs(trained + extra, shares)
    assert sum(dealt) == trained + extra
    assert [number > 0 for number in dealt] == [share > 0 for share in shares]
