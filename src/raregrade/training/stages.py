"""Training in stages: how the epochs are shared out, and what becomes of model and head as a stage begins.

Most losses have one stage; two-stage methods train a representation first and then a classifier on the
frozen backbone. What a stage asks for is the loss's (``raregrade.losses.Stage``); this module carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from raregrade.config.training import share_epochs
from raregrade.errors import ConfigError
from raregrade.losses import HeadSpec, Stage
from raregrade.models.backbone import Classifier
from raregrade.models.heads import (
    LearnableWeightScaling,
    LinearHead,
    create_head,
    freeze,
    tau_normalised_head,
    train_except,
)


@dataclass(frozen=True)
class Span:
    """A stage with its epochs ``first`` to ``last`` - 1, counted from 0 over the whole run."""

    stage: Stage
    first: int
    last: int

    @property
    def epochs(self) -> int:
        return self.last - self.first


def plan_stages(stages: Sequence[Stage], epochs: int) -> list[Span]:
    """Share ``epochs`` out among ``stages``: each stage with a share gets at least one, together they get all.

    Raises:
        ConfigError: fewer epochs than stages that train.
    """
    dealt = share_epochs(epochs, [stage.share for stage in stages])
    ends = accumulate(dealt)
    return [Span(stage, end - number, end) for stage, number, end in zip(stages, dealt, ends, strict=True)]


def begin_stage(model: Classifier, stage: Stage, *, head: HeadSpec, seed: int) -> None:
    """Freeze what ``stage`` freezes and change the head as it says. A new head is drawn from ``seed``."""
    if stage.freeze_backbone:
        for module in _backbone_parts(model):
            freeze(module)
    if stage.head == "keep":
        return
    weight = cast(Tensor, next(model.head.parameters()))
    if stage.head == "new":
        torch.manual_seed(seed)
        features = model.num_features
        outputs = cast(nn.Linear, model.head).weight.shape[0]
        model.head = create_head(head.kind, features, outputs, head.scale).to(weight.device)
    elif stage.head == "scale":
        model.head = LearnableWeightScaling(_linear(model.head))
    else:
        model.head = tau_normalised_head(_linear(model.head), stage.tau)


def train_mode(model: Classifier, stage: Stage, frozen: Sequence[nn.Module] = ()) -> None:
    """``model.train()``, in which ``frozen`` modules keep their BatchNorm statistics.

    A backbone that the stage freezes keeps its own too, and nothing is dropped.
    """
    parts = [*_backbone_parts(model), model.dropout] if stage.freeze_backbone else frozen
    train_except(model, parts)


def _backbone_parts(model: Classifier) -> list[nn.Module]:
    """The backbone with its auxiliary head, where it has one: the two are trained together or not at all."""
    return [model.backbone] if model.auxiliary is None else [model.backbone, model.auxiliary]


def plain_state(model: Classifier) -> dict[str, Tensor]:
    """A copy on the CPU of the weights as the model folder holds them: a scaled head is folded into a linear one."""
    state = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
    if isinstance(model.head, LearnableWeightScaling):
        state = {k: v for k, v in state.items() if not k.startswith("head.")}
        folded = model.head.folded().state_dict()
        state |= {f"head.{k}": v.detach().to("cpu", copy=True) for k, v in folded.items()}
    return state


def _linear(head: nn.Module) -> LinearHead:
    if not isinstance(head, LinearHead):
        raise ConfigError(f"rebalancing a {type(head).__name__} is not defined; it needs a linear head")
    return head
