"""Training learns, repeats to the last bit, and continues after an interruption as if nothing had happened."""

import pytest
import torch

from raregrade.data.manifest import PreparedDataset
from raregrade.errors import InterruptedRunError
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.loop import TrainingDivergedError, fit


def equal_weights(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def run(section, dataset, reporter, *, seed=1, metric="qwk", checkpoint=None):
    return fit(section, dataset, seed=seed, metric=metric, reporter=reporter, checkpoint=checkpoint or Checkpoint(None))


def test_the_training_loss_falls(prepared: PreparedDataset, section, reporter) -> None:
    history = run(section(epochs=4, lr=3e-3), prepared, reporter()).history
    assert len(history) == 4
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize("kind", ["ce", "cdw_ce", "lmf"])
def test_every_loss_yields_weights_probabilities_and_a_best_epoch(prepared, section, reporter, kind: str) -> None:
    result = run(section(kind, epochs=1), prepared, reporter())
    assert result.best_epoch == 1
    assert all(torch.isfinite(v).all() for v in result.weights.values())
    assert result.statistics.class_counts.sum() == len(prepared.rows("train"))


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(prepared, section, reporter) -> None:
    first, second = (run(section(), prepared, reporter()) for _ in range(2))
    assert equal_weights(first.weights, second.weights)
    assert first.history == second.history
    other = run(section(), prepared, reporter(), seed=2)
    assert not equal_weights(first.weights, other.weights)


@pytest.mark.parametrize("stop_after", [1, 5])
def test_an_interrupted_run_resumes_to_the_same_weights(prepared, section, reporter, checkpoints, stop_after) -> None:
    settings = section(epochs=2, dropout=0.2)
    whole = run(settings, prepared, reporter())
    checkpoint = Checkpoint(checkpoints)
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        run(settings, prepared, reporter(stop_after=stop_after), checkpoint=checkpoint)
    resumed = run(settings, prepared, reporter(), checkpoint=checkpoint)
    assert equal_weights(whole.weights, resumed.weights)
    assert whole.history == resumed.history


def test_a_run_can_be_interrupted_again_and_again(prepared, section, reporter, checkpoints) -> None:
    settings = section(epochs=1)
    whole = run(settings, prepared, reporter())
    checkpoint, interruptions = Checkpoint(checkpoints), 0
    while True:
        try:
            resumed = run(settings, prepared, reporter(stop_after=1), checkpoint=checkpoint)
        except InterruptedRunError:
            interruptions += 1
            continue
        break
    assert interruptions >= 2
    assert equal_weights(whole.weights, resumed.weights)


def test_the_best_epoch_is_kept_not_the_last(prepared, section, reporter) -> None:
    result = run(section(epochs=4, lr=0.02, optimizer="sgd"), prepared, reporter())
    values = [row["val_qwk"] for row in result.history]
    assert result.best_value == max(values)
    assert result.best_epoch == values.index(max(values)) + 1


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(prepared, section, reporter) -> None:
    with pytest.raises(TrainingDivergedError, match=r"became NaN or infinite .*Lower train\.lr"):
        run(section(epochs=3, lr=10.0, weight_decay=10.0, optimizer="sgd", warmup_epochs=0.0), prepared, reporter())


def test_the_test_split_is_not_read(prepared, section, reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = PreparedDataset.rows

    def spy(self: PreparedDataset, split: str):
        asked.append(split)
        return original(self, split)

    monkeypatch.setattr(PreparedDataset, "rows", spy)
    run(section(epochs=1), prepared, reporter())
    assert set(asked) == {"train", "val"}


def test_a_loss_that_is_not_finite_is_reported_with_epoch_step_and_images(
    prepared, section, reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raregrade.losses.cross_entropy import CrossEntropyLoss

    calls = 0
    original = CrossEntropyLoss.forward

    def forward(self, logits, target):
        nonlocal calls
        calls += 1
        return original(self, logits, target) * (float("nan") if calls == 2 else 1.0)

    monkeypatch.setattr(CrossEntropyLoss, "forward", forward)
    with pytest.raises(TrainingDivergedError, match=r"in epoch 1, step 2, at learning rate \S+, on the images \S+"):
        run(section(), prepared, reporter())
