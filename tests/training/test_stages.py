"""Stages share the epochs out, and a frozen backbone stays frozen: weights, BatchNorm statistics and dropout."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import LossChoice, TrainSection
from raregrade.errors import ConfigError, InterruptedRunError
from raregrade.labels import LabelSpace, label_statistics
from raregrade.losses import LOSSES, Stage, create_loss
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.loop import fit
from raregrade.training.stages import plan_stages


def two_stages(section, classifier: str, **train: object) -> TrainSection:
    params = LOSSES["two_stage"](classifier=classifier, metric="class_center", classifier_share=0.4)
    return TrainSection(
        train=section(**train).train, loss=LossChoice(name="two_stage", kind="two_stage", params=params)
    )


def run(section, dataset, reporter, checkpoint=None):
    return fit(section, dataset, seed=1, metric="qwk", reporter=reporter, checkpoint=checkpoint or Checkpoint(None))


@given(
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=4),
    extra=st.integers(0, 30),
    untrained=st.booleans(),
)
def test_every_stage_gets_an_epoch_and_together_they_get_all(shares: list[float], extra: int, untrained: bool) -> None:
    stages = [Stage(str(i), share=share) for i, share in enumerate(shares)]
    stages += [Stage("untrained", share=0.0)] if untrained else []
    epochs = len(shares) + extra
    spans = plan_stages(stages, epochs)
    assert [span.epochs > 0 for span in spans] == [stage.share > 0 for stage in stages]
    assert spans[0].first == 0
    assert spans[-1].last == epochs
    assert all(a.last == b.first for a, b in itertools.pairwise(spans))


def test_epochs_follow_the_shares() -> None:
    spans = plan_stages([Stage("a", share=0.7), Stage("b", share=0.3)], 20)
    assert [span.epochs for span in spans] == [14, 6]


def test_fewer_epochs_than_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs = 1: training in 2 stages .* Set train\.epochs=2 or more"):
        plan_stages([Stage("a", share=0.5), Stage("b", share=0.5)], 1)


@pytest.mark.parametrize("classifier", ["crt", "balanced_softmax", "lws", "tau_norm"])
def test_the_second_stage_changes_the_head_and_nothing_else(prepared, section, reporter, classifier: str) -> None:
    settings = two_stages(section, classifier, epochs=3, dropout=0.3)
    entered: dict[str, torch.Tensor] = {}

    from raregrade.training import loop

    original = loop._Fit._enter_stage

    def enter(self: loop._Fit, number: int) -> None:
        entered.update(self.progress.best_weights)
        original(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Fit, "_enter_stage", enter)
        result = run(settings, prepared, reporter())
    assert entered.keys() == result.weights.keys() | ({"head.bias"} & entered.keys())
    backbone = [k for k in entered if k.startswith("backbone.")]
    assert any("running_mean" in k for k in backbone)
    assert [k for k in backbone if not torch.equal(entered[k], result.weights[k])] == []
    assert not torch.equal(entered["head.weight"], result.weights["head.weight"])


def test_a_staged_run_interrupted_in_its_second_stage_resumes_to_the_same_weights(
    prepared, section, reporter, checkpoints
) -> None:
    settings = two_stages(section, "lws", epochs=3)
    whole = run(settings, prepared, counter := reporter())
    checkpoint = Checkpoint(checkpoints)
    with pytest.raises(InterruptedRunError, match="epoch 3 of 3"):
        run(settings, prepared, reporter(stop_after=counter.steps - 1), checkpoint)
    resumed = run(settings, prepared, reporter(), checkpoint)
    assert all(torch.equal(whole.weights[k], resumed.weights[k]) for k in whole.weights)
    assert whole.history == resumed.history


def test_batches_of_the_first_stage_hold_several_images_of_each_class(prepared, section, reporter, monkeypatch) -> None:
    """As the loop trains on them, and as many as the second stage has of its own."""
    from raregrade.training.update import Updater

    batches: list[list[int]] = []
    original = Updater.update

    def update(self, passes, lr):
        batches.append(sorted(torch.bincount(passes[0][1], minlength=4).tolist()))
        return original(self, passes, lr)

    monkeypatch.setattr(Updater, "update", update)
    run(two_stages(section, "balanced_softmax", epochs=2, batch_size=32), prepared, reporter())
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert first == [[8, 8, 8, 8]] * (len(prepared.rows("train")) // 32)
    assert len(second) == len(first)
    assert {sum(counts) for counts in second} == {32}


@pytest.mark.parametrize("kind", list(LOSSES))
def test_the_settings_of_a_loss_know_the_stages_that_it_asks_for(kind: str) -> None:
    """The settings are checked before torch is imported, and the stages belong to the loss."""
    task = LOSSES[kind].tasks[-1]
    edges = (("a", "b"),) if task == "multilabel" else ()
    space = LabelSpace(task, ("a", "b", "c"), edges)
    targets = np.eye(3) if task == "multilabel" else np.array([0, 1, 2, 0])
    for classifier in ("crt", "tau_norm") if kind == "two_stage" else (None,):
        params = LOSSES[kind](**({"classifier": classifier, "classifier_share": 0.4} if classifier else {}))
        statistics = label_statistics(targets, space)
        loss = create_loss(kind, label_space=space, statistics=statistics, **params.model_dump())
        assert params.stage_shares == tuple(stage.share for stage in loss.stages)


def test_every_stage_runs_through_the_schedule_and_its_warm_up_once(prepared, section, reporter) -> None:
    settings = two_stages(section, "crt", epochs=5, lr=1e-2, warmup_epochs=1.0, batch_size=16)
    rates: list[float] = []

    class Watching(reporter):
        def step(self, *arguments):
            rates.append(fitted.updater.optimizer.param_groups[-1]["lr"])

    from raregrade.training import loop

    class Fit(loop._Fit):
        def run(self):
            nonlocal fitted
            fitted = self
            return super().run()

    fitted: loop._Fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_Fit", Fit)
        run(settings, prepared, Watching())
    steps = len(prepared.rows("train")) // 16

    def stage(epochs: int) -> list[float]:
        total, warmup = epochs * steps, round(epochs / 5 * steps)
        rise = [1e-2 * (i + 1) / (warmup + 1) for i in range(warmup)]
        return rise + [5e-3 * (1 + math.cos(math.pi * i / (total - warmup))) for i in range(total - warmup)]

    assert rates == pytest.approx(stage(3) + stage(2))


@pytest.mark.parametrize("tau", [0.4, 1.0])
def test_a_tau_normalised_head_has_rows_of_the_length_that_tau_leaves(prepared, section, reporter, tau: float) -> None:
    params = LOSSES["two_stage"](classifier="tau_norm", metric="class_center", tau=tau)
    settings = TrainSection(
        train=section(epochs=1, batch_size=64).train,
        loss=LossChoice(name="two_stage", kind="two_stage", params=params),
    )
    from raregrade.training import loop

    entered: dict[str, torch.Tensor] = {}
    original = loop._Fit._enter_stage

    def enter(self: loop._Fit, number: int) -> None:
        entered.update(self.progress.best_weights)
        original(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Fit, "_enter_stage", enter)
        weight = run(settings, prepared, reporter()).weights["head.weight"]
    before = entered["head.weight"]
    torch.testing.assert_close(weight, before / before.norm(dim=1, keepdim=True) ** tau)
