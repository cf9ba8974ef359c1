"""One update: forward passes add up to the batch, the auxiliary loss has its weight, the average follows its decay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.losses import Stage
from raregrade.losses.cross_entropy import CrossEntropyLoss
from raregrade.models.backbone import Classifier, TrainOutputs
from raregrade.training.distributed import Processes
from raregrade.training.stages import Span
from raregrade.training.update import Updater

CPU = torch.device("cpu")


class _WithAuxiliary(Classifier):
    """A linear network, whose auxiliary logits come of a head of their own."""

    def __init__(self) -> None:
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        backbone.num_features = 5  # type: ignore[assignment]
        super().__init__(backbone, nn.Linear(5, 3), channels=3)
        self.side = nn.Linear(5, 3)

    def forward_train(self, images: Tensor) -> TrainOutputs:
        features = self.features(images)
        return TrainOutputs(self.classify(features), features, self.side(features))


def model_of() -> _WithAuxiliary:
    torch.manual_seed(0)
    return _WithAuxiliary()


def updater_of(model: Classifier, **train: object) -> Updater:
    config = TrainConfig(**{"optimizer": "sgd", "weight_decay": 0.0, "epochs": 10, "aux_weight": 0.0} | train)
    updater = Updater(
        model,
        CrossEntropyLoss(3),
        config,
        device=CPU,
        precision=torch.float32,
        processes=Processes(),
        seed=1,
    )
    updater.begin_stage(0, Span(Stage("train"), 0, 10))
    return updater


def batch_of(images: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 2, 2, generator=generator), torch.arange(images) % 3


@pytest.mark.parametrize("parts", [2, 4])
def test_the_gradient_of_several_forward_passes_is_that_of_the_whole_batch(parts: int) -> None:
    """Plain gradient descent shows it: Adam would hide a factor."""
    images, target = batch_of()
    whole, split = updater_of(model_of()), updater_of(model_of())
    loss = whole.update([(images, target)], lr=0.5)
    passes = list(zip(images.chunk(parts), target.chunk(parts), strict=True))
    torch.testing.assert_close(split.update(passes, lr=0.5), loss)
    for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_of_one_update_do_not_reach_the_next() -> None:
    images, target = batch_of()
    updater = updater_of(model_of())
    updater.update([(images, target)], lr=0.5)
    updater.update([(images, target)], lr=0.5)
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, nesterov=True)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(updater.model.state_dict()[name], value)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.4, 1.0])
def test_the_auxiliary_loss_counts_with_its_weight(weight: float) -> None:
    images, target = batch_of()
    model = model_of()
    logits, features = model(images), model.features(images)
    expected = nn.functional.cross_entropy(logits, target)
    expected = expected + weight * nn.functional.cross_entropy(model.side(features), target)
    updater = updater_of(model, aux_weight=weight)
    torch.testing.assert_close(updater.update([(images, target)], lr=0.1), expected.detach())
    moved = not torch.equal(model.side.weight, model_of().side.weight)
    assert moved == (weight > 0)


@pytest.mark.parametrize("decay", [0.3, 0.6, 0.999])
def test_the_average_follows_its_decay_which_rises_from_zero(decay: float) -> None:
    """After t updates the average keeps min(decay, 1 - t^(-2/3)) of itself: the first update is taken whole."""
    updater = updater_of(model_of(), ema=decay)
    expected: Tensor | None = None
    for number in range(1, 7):
        updater.update([batch_of(seed=number)], lr=0.5)
        weights = updater.model.head.weight.detach().clone()
        kept = min(decay, 1 - number ** (-2 / 3))
        expected = weights if expected is None else kept * expected + (1 - kept) * weights
        assert updater.judged is not updater.model
        torch.testing.assert_close(updater.judged.head.weight, expected)


def test_the_average_begins_anew_with_a_stage_and_goes_on_from_a_checkpoint() -> None:
    updater = updater_of(model_of(), ema=0.9)
    for number in range(3):
        updater.update([batch_of(seed=number)], lr=0.5)
    state = copy.deepcopy(updater.state())
    updater.update([batch_of(seed=3)], lr=0.5)
    resumed = updater_of(model_of(), ema=0.9)
    resumed.load_state(state)
    resumed.update([batch_of(seed=3)], lr=0.5)
    torch.testing.assert_close(resumed.judged.head.weight, updater.judged.head.weight, rtol=0, atol=0)
    updater.begin_stage(0, Span(Stage("train"), 0, 10))
    updater.update([batch_of(seed=4)], lr=0.5)
    torch.testing.assert_close(updater.judged.head.weight, updater.model.head.weight)


def test_without_an_average_the_model_itself_is_judged() -> None:
    updater = updater_of(model_of())
    assert updater.judged is updater.model


@pytest.mark.parametrize("clip", [0.01, 0.1])
def test_the_gradient_is_clipped_to_its_length(clip: float) -> None:
    before = model_of()
    updater = updater_of(model_of(), gradient_clip=clip)
    updater.update([batch_of()], lr=1.0)
    moved = [(a - b).detach().flatten() for a, b in zip(updater.model.parameters(), before.parameters(), strict=True)]
    # The first step of Nesterov's momentum is 1 + 0.9 gradients long.
    assert float(torch.cat(moved).norm()) == pytest.approx(1.9 * clip, rel=1e-3)
