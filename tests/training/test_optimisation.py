"""The learning rate is a function of the step and of a plateau's scale; vectors are not decayed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import TrainConfig
from raregrade.models.backbone import Classifier
from raregrade.training.optimisation import Plateau, create_optimizer, learning_rate, set_learning_rate

SCHEDULES = ["cosine", "constant", "step", "plateau"]


@given(
    epochs=st.integers(4, 50),
    steps=st.integers(1, 40),
    warmup=st.floats(0, 0.99),
    part=st.floats(0.1, 1),
    schedule=st.sampled_from(SCHEDULES),
)
def test_the_learning_rate_is_positive_and_reaches_its_peak_but_never_more(
    epochs: int, steps: int, warmup: float, part: float, schedule: str
) -> None:
    config = TrainConfig(epochs=epochs, warmup_epochs=warmup * epochs, schedule=schedule, lr=0.1, lr_epochs=1)
    stage = max(1, round(part * epochs))
    rates = [learning_rate(config, step, steps, stage) for step in range(stage * steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    if schedule in ("cosine", "constant", "plateau"):
        assert max(rates) == pytest.approx(0.1)


@given(epochs=st.integers(4, 40), lr_epochs=st.integers(1, 40), schedule=st.sampled_from(["step", "plateau"]))
def test_a_schedule_is_said_to_act_where_it_lowers_a_rate_that_is_trained_with(
    epochs: int, lr_epochs: int, schedule: str
) -> None:
    config = TrainConfig(epochs=80, schedule=schedule, lr_epochs=lr_epochs, warmup_epochs=0.0, lr=0.1)
    plateau, rates = Plateau(), []
    for epoch in range(epochs):
        rates.append(learning_rate(config, epoch, 1, epochs, plateau.scale))
        plateau.update(0.5, config, lower_is_better=False)
    assert config.schedule_acts(epochs) == (min(rates) < 0.1)


def test_a_stage_warms_up_for_its_part_of_the_warm_up() -> None:
    config = TrainConfig(epochs=10, warmup_epochs=2.0, lr=1.0, schedule="constant")
    assert [learning_rate(config, step, 10, 5) for step in range(12)] == pytest.approx(
        [(step + 1) / 11 for step in range(10)] + [1.0, 1.0]
    )


def test_warm_up_rises_in_equal_steps_and_the_cosine_falls_to_nearly_nothing() -> None:
    config = TrainConfig(epochs=10, warmup_epochs=1.0, lr=1.0)
    rates = [learning_rate(config, step, 9, 10) for step in range(90)]
    assert rates[:9] == pytest.approx([0.1 * i for i in range(1, 10)])
    assert rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001


def test_the_step_schedule_is_that_of_torch() -> None:
    config = TrainConfig(schedule="step", lr=0.1, lr_epochs=3, lr_factor=0.5, warmup_epochs=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    for epoch in range(10):
        assert learning_rate(config, epoch * 7, 7, 10) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    patience=st.integers(1, 4),
    lower_is_better=st.booleans(),
)
def test_the_plateau_schedule_is_that_of_torch(values: list[float], patience: int, lower_is_better: bool) -> None:
    config = TrainConfig(schedule="plateau", lr=0.1, lr_epochs=patience, lr_factor=0.2, warmup_epochs=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min" if lower_is_better else "max", factor=0.2, patience=patience, threshold=1e-4, eps=0
    )
    plateau = Plateau()
    for value in values:
        plateau.update(value, config, lower_is_better=lower_is_better)
        reference.step(value)
        ours = learning_rate(config, 0, 1, len(values), plateau.scale)
        assert math.isclose(ours, optimizer.param_groups[0]["lr"], rel_tol=1e-9)


def test_a_plateau_never_falls_below_the_least_learning_rate() -> None:
    config = TrainConfig(schedule="plateau", lr=0.1, lr_min=0.05, lr_epochs=1, lr_factor=0.1, warmup_epochs=0.0)
    plateau = Plateau()
    fell = [plateau.update(0.5, config, lower_is_better=False) for _ in range(8)]
    assert fell.count(True) == 1
    assert learning_rate(config, 5, 1, 10, plateau.scale) == 0.05


def _model() -> Classifier:
    backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    return Classifier(backbone, torch.nn.Linear(4, 3), channels=1)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_biases_and_normalisation_are_not_decayed(optimizer: str) -> None:
    groups = create_optimizer(_model(), TrainConfig(optimizer=optimizer, weight_decay=0.3)).param_groups
    decay = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {4: 0.3, 2: 0.3, 1: 0.0}


def test_the_backbone_learns_at_its_own_multiple_of_the_learning_rate() -> None:
    model = _model()
    optimizer = create_optimizer(model, TrainConfig(backbone_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    head = {id(p) for p in model.head.parameters()}
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[key] for key in head} == {0.5}
    assert {rate for key, rate in rates.items() if key not in head} == {0.05}


def test_what_is_frozen_is_not_in_the_optimiser() -> None:
    model = _model()
    model.backbone.requires_grad_(False)
    trained = [p for group in create_optimizer(model, TrainConfig()).param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.head.parameters()}
