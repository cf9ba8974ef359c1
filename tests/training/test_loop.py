"""Training learns, repeats to the last bit, and continues after an interruption as if nothing had happened."""

import numpy as np
import pytest
import torch

from raregrade.data.manifest import PreparedDataset
from raregrade.errors import ConfigError, InterruptedRunError, ModelError
from raregrade.losses import Stage
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.loop import fit
from raregrade.training.order import epoch_batches
from raregrade.training.result import TrainingDivergedError


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


def test_forward_passes_add_up_to_the_batch(prepared, section, reporter) -> None:
    """With a backbone whose outputs don't depend on what else is in the batch."""
    settings = {"backbone": "test_convnext", "epochs": 2}
    whole = run(section(**settings), prepared, reporter()).history
    parts = run(section(**settings, accumulate=4), prepared, reporter()).history
    for a, b in zip(whole, parts, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)


def test_the_average_of_the_weights_is_what_is_judged_and_kept(prepared, section, reporter, checkpoints) -> None:
    plain = run(section(epochs=2), prepared, reporter())
    averaged = run(section(epochs=2, ema=0.9), prepared, reporter())
    assert [r["train_loss"] for r in plain.history] == [r["train_loss"] for r in averaged.history]
    assert not equal_weights(plain.weights, averaged.weights)
    checkpoint = Checkpoint(checkpoints)
    with pytest.raises(InterruptedRunError):
        run(section(epochs=2, ema=0.9), prepared, reporter(stop_after=6), checkpoint=checkpoint)
    resumed = run(section(epochs=2, ema=0.9), prepared, reporter(), checkpoint=checkpoint)
    assert equal_weights(averaged.weights, resumed.weights)


def test_training_stops_early_and_says_so(prepared, section, reporter, checkpoints) -> None:
    told = reporter()
    # Hardly any learning rate: the metric stays what it is.
    settings = section(epochs=30, lr=1e-12, early_stopping=2, schedule="constant")
    result = run(settings, prepared, told)
    assert len(result.history) == result.best_epoch + 2 < 30
    assert "stopped early: qwk has not improved for 2 epochs" in told.notes[-1]


def test_a_plateau_lowers_the_learning_rate_and_survives_an_interruption(prepared, section, reporter, checkpoints):
    settings = section(epochs=6, lr=1e-9, schedule="plateau", lr_epochs=1, lr_factor=0.5, warmup_epochs=0.0)
    told = reporter()
    whole = run(settings, prepared, told)
    rates = [row["lr"] for row in whole.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]
    assert any("the learning rate falls to" in note for note in told.notes)
    checkpoint = Checkpoint(checkpoints)
    with pytest.raises(InterruptedRunError):
        run(settings, prepared, reporter(stop_after=told.steps - 2), checkpoint=checkpoint)
    assert run(settings, prepared, reporter(), checkpoint=checkpoint).history == whole.history


def test_every_epoch_is_saved_and_a_resumed_run_tells_what_was_done(prepared, section, reporter, checkpoints) -> None:
    settings, checkpoint = section(epochs=3), Checkpoint(checkpoints)

    class Dies(reporter):
        def epoch(self, row, *, best):
            super().epoch(row, best=best)
            checkpoint.wait()
            if row["epoch"] == 2:
                raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError, match="ends here"):
        run(settings, prepared, Dies(), checkpoint=checkpoint)
    told = reporter()
    resumed = run(settings, prepared, told, checkpoint=checkpoint)
    assert told.resumed_at == 1
    assert told.rows == resumed.history
    assert equal_weights(resumed.weights, run(settings, prepared, reporter()).weights)


def test_float16_is_refused_on_a_cpu(prepared, section, reporter) -> None:
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        run(section(precision="float16"), prepared, reporter())


def test_deterministic_algorithms_hold_for_the_run_alone(prepared, section, reporter) -> None:
    seen: list[bool] = []

    class Watching(reporter):
        def step(self, *arguments):
            seen.append(torch.are_deterministic_algorithms_enabled())

    run(section(epochs=1, deterministic=True), prepared, Watching())
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_a_compiled_model_learns_as_the_plain_one(prepared, section, reporter) -> None:
    settings = {"backbone": "test_convnext", "epochs": 2}
    plain = run(section(**settings), prepared, reporter()).history
    compiled = run(section(**settings, compile=True), prepared, reporter()).history
    for a, b in zip(plain, compiled, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-3)


def test_frozen_modules_keep_weights_and_batch_statistics(prepared, section, reporter) -> None:
    """Against the weights before training, which an epoch with hardly any learning rate leaves where they were."""
    settings = {"epochs": 1, "optimizer": "sgd"}
    before = run(section(**settings, lr=1e-30, weight_decay=0.0), prepared, reporter()).weights
    after = run(section(**settings, freeze=["conv1", "layer1"]), prepared, reporter()).weights
    frozen = [k for k in after if k.startswith(("backbone.conv1.0.", "backbone.layer1.")) and "running" not in k]
    assert frozen
    assert all(torch.allclose(before[k], after[k], atol=1e-20) for k in frozen if "num_batches" not in k)
    assert not torch.equal(before["backbone.layer2.0.conv1.weight"], after["backbone.layer2.0.conv1.weight"])
    statistics = [k for k in after if k.startswith("backbone.layer1.") and k.endswith("running_mean")]
    assert statistics
    assert all(not after[k].any() for k in statistics), "those of a network that has seen nothing are 0"


def test_an_unknown_module_to_freeze_is_refused(prepared, section, reporter) -> None:
    with pytest.raises(ModelError, match=r"train\.freeze: the backbone has no module 'layer9'; its modules: .*layer1"):
        run(section(freeze=["layer9"]), prepared, reporter())


def test_normalisation_and_counts_are_those_of_the_training_images_alone(prepared, section, reporter) -> None:
    result = run(section(epochs=1, batch_size=64), prepared, reporter())
    rows = prepared.rows("train")
    pixels = prepared.images(rows).astype(np.float64)
    assert result.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)).tolist(), rel=1e-12)
    assert result.std == pytest.approx(pixels.std(axis=(0, 1, 2)).tolist(), rel=1e-9)
    assert torch.allclose(result.weights["mean"].flatten().double(), torch.tensor(result.mean).double())
    assert torch.allclose(result.weights["std"].flatten().double(), torch.tensor(result.std).double())
    assert result.statistics.class_counts.tolist() == np.bincount(prepared.targets(rows), minlength=4).tolist()
    both = np.concatenate([rows, prepared.rows("val")])
    assert result.mean != pytest.approx(prepared.images(both).mean(axis=(0, 1, 2)).tolist(), rel=1e-4)


@pytest.mark.parametrize("kind", ["lmf", "weighted_ce", "balanced_softmax", "drw"])
def test_a_loss_weighs_by_the_counts_of_the_training_images(prepared, section, reporter, kind: str) -> None:
    from raregrade.losses import create_loss

    result = run(section(kind, epochs=5, batch_size=64), prepared, reporter())
    counts = np.bincount(prepared.targets(prepared.rows("train")), minlength=4).tolist()
    expected = create_loss(kind, label_space=prepared.label_space, class_counts=counts)
    expected.set_epoch(4, 5)
    logits, target = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    torch.testing.assert_close(result.loss(logits, target), expected(logits, target))


def test_an_image_is_augmented_by_seed_epoch_and_its_row(prepared, section, reporter, checkpoints, monkeypatch) -> None:
    """What the network is given, also after an interruption within an epoch."""
    from raregrade.data.augment import augment
    from raregrade.models.backbone import Classifier

    given: list[torch.Tensor] = []
    original = Classifier.forward_train

    def forward_train(self, images):
        given.append(images.clone())
        return original(self, images)

    monkeypatch.setattr(Classifier, "forward_train", forward_train)
    settings, checkpoint = section(epochs=2, batch_size=32), Checkpoint(checkpoints)
    with pytest.raises(InterruptedRunError):
        run(settings, prepared, reporter(stop_after=1), seed=3, checkpoint=checkpoint)
    run(settings, prepared, reporter(), seed=3, checkpoint=checkpoint)
    rows, targets = prepared.rows("train"), prepared.targets(prepared.rows("train"))
    for epoch in range(2):
        for batch in epoch_batches(targets, settings.train, Stage("train"), seed=3, epoch=epoch):
            raw = torch.from_numpy(np.array(prepared.images(rows[batch]))).permute(0, 3, 1, 2)
            expected = augment(raw, rows[batch], seed=3, epoch=epoch, config=settings.train.augment)
            torch.testing.assert_close(given.pop(0), expected)
    assert given == []


def test_a_deferred_weighting_begins_with_the_epoch_that_its_start_names(prepared, section, reporter) -> None:
    """After 80 % of five epochs: in the last one, by its weights and in float64 as well."""
    from raregrade.losses.ldam import DRWLoss

    seen: list[bool] = []
    original = DRWLoss.set_epoch

    def set_epoch(self, epoch, epochs):
        original(self, epoch, epochs)
        even = torch.ones(4, dtype=torch.float64)
        assert torch.allclose(self.class_weights.double(), self.class_weights_float64)
        seen.append(not torch.equal(self.class_weights_float64, even))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRWLoss, "set_epoch", set_epoch)
        run(section("drw", epochs=5, batch_size=64), prepared, reporter())
    assert seen == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("kind", "train", "said"),
    [
        ("balanced_softmax", {"sampler": "class_balanced"}, r"train\.sampler = class_balanced: .*balanced_softmax"),
        ("two_stage", {"epochs": 1}, r"train\.epochs = 1: training in 2 stages"),
        ("drw", {"epochs": 2}, r"losses\.drw\.start = 0\.8: with train\.epochs = 2"),
    ],
)
def test_settings_that_contradict_the_loss_are_refused_before_data_are_read(  # noqa: PLR0917
    prepared, section, reporter, monkeypatch, kind, train, said
) -> None:
    monkeypatch.setattr(PreparedDataset, "rows", lambda *_: pytest.fail("data were read"))
    with pytest.raises(ConfigError, match=said):
        run(section(kind, **train), prepared, reporter())


def test_the_loop_divides_a_small_split_among_its_processes(section) -> None:
    from types import SimpleNamespace

    from raregrade.training.distributed import Processes
    from raregrade.training.loop import _Fit

    settings = section(batch_size=16, accumulate=2).train
    run_of_two = SimpleNamespace(
        targets=np.arange(15) % 4,
        config=settings,
        span=SimpleNamespace(stage=Stage("train")),
        seed=1,
        progress=SimpleNamespace(epoch=0),
        processes=Processes(0, 2),
    )
    assert [len(batch) for batch in _Fit._epoch_batches(run_of_two)] == [12]
