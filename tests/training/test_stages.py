"""Stages share the epochs out, and a frozen backbone stays frozen: weights, BatchNorm statistics and dropout."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import LOSS_PARAMS, LossChoice, TrainSection
from raregrade.errors import ConfigError, InterruptedRunError
from raregrade.losses.base import Stage
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.loop import fit
from raregrade.training.stages import plan_stages


def two_stages(section, classifier: str, **train: object) -> TrainSection:
    params = LOSS_PARAMS["two_stage"](classifier=classifier, metric="class_center", classifier_share=0.4)
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
    with pytest.raises(ConfigError, match=r"train\.epochs = 1: the stages a and b need at least one epoch each"):
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


def test_batches_of_the_first_stage_hold_several_images_of_each_class(prepared) -> None:
    from raregrade.config import TrainConfig
    from raregrade.training.order import epoch_batches

    targets = prepared.targets(prepared.rows("train"))
    stage = Stage("representation", sampler="pk", images_per_class=4)
    for batch in epoch_batches(targets, TrainConfig(batch_size=16), stage, seed=1, epoch=0):
        assert sorted(torch.bincount(torch.from_numpy(targets[batch])).tolist()) == [4, 4, 4, 4]
