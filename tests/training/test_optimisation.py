"""The learning-rate schedule is a function of the step, and vectors are not decayed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import TrainConfig
from raregrade.training.optimisation import create_optimizer, learning_rate


@given(
    epochs=st.integers(1, 50),
    steps=st.integers(1, 40),
    warmup=st.floats(0, 10),
    schedule=st.sampled_from(["cosine", "constant"]),
)
def test_the_learning_rate_is_positive_and_never_above_its_peak(
    epochs: int, steps: int, warmup: float, schedule: str
) -> None:
    config = TrainConfig(epochs=epochs, warmup_epochs=warmup, schedule=schedule, lr=0.1)
    rates = [learning_rate(config, step, steps, epochs) for step in range(epochs * steps)]
    assert all(0 < rate <= 0.1 for rate in rates)


def test_warm_up_rises_in_equal_steps_and_the_cosine_falls_to_nearly_nothing() -> None:
    config = TrainConfig(epochs=10, warmup_epochs=1.0, lr=1.0)
    rates = [learning_rate(config, step, 9, 10) for step in range(90)]
    assert rates[:9] == pytest.approx([0.1 * i for i in range(1, 10)])
    assert rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_biases_and_normalisation_are_not_decayed(optimizer: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    groups = create_optimizer(model, TrainConfig(optimizer=optimizer, weight_decay=0.3)).param_groups
    assert [p.ndim for p in groups[0]["params"]] == [4]
    assert groups[0]["weight_decay"] == 0.3
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert groups[1]["weight_decay"] == 0.0
