"""One update of the weights: forward, loss, backward, optimiser; and the running average of the weights.

What a stage of training changes in the model is done here too, because optimiser, average and the module that
processes share are made from what is left to train. Which images make a batch is the loop's business.

Shapes: B images of the batch over all processes, b those of this process, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.losses.base import Loss
from raregrade.models.backbone import Classifier, TrainOutputs, freeze_modules
from raregrade.training.distributed import Processes, gather_batch
from raregrade.training.hardware import autocast
from raregrade.training.optimisation import create_optimizer, set_learning_rate
from raregrade.training.stages import Span, begin_stage, train_mode


class _TrainingForward(nn.Module):
    """The forward pass of training as a module, which is what torch.compile and DistributedDataParallel wrap."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> TrainOutputs:
        return self.model.forward_train(images)


class Updater:
    """A model with what trains it.

    Attributes:
        model: is updated in place.
        average: the running average of its weights, or None without ``train.ema``.
        optimizer: of the current stage.
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        config: TrainConfig,
        *,
        device: torch.device,
        precision: torch.dtype,
        processes: Processes,
        seed: int,
    ) -> None:
        self.model = _with_shared_statistics(model, processes, device)
        self.loss = loss
        self.config = config
        self.device = device
        self.precision = precision
        self.processes = processes
        self.seed = seed
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        self.updates = 0
        self.frozen = freeze_modules(model.backbone, config.freeze)

    def begin_stage(self, number: int, span: Span) -> None:
        """Change the model as the stage asks; the optimiser and the average start anew with what is left to train."""
        self.loss.set_stage(number)
        begin_stage(self.model, span.stage, head=self.loss.head, seed=self.seed + number)
        # What is frozen from here on would keep the gradients of its last update.
        self.model.zero_grad(set_to_none=True)
        self.span = span
        self.updates = 0
        self.average = _average_of(self.model, self.config)
        if span.epochs:
            self.optimizer = create_optimizer(self.model, self.config)
            self._forward = self._wrapped_forward()

    @property
    def judged(self) -> Classifier:
        """The model that is validated and kept: the average where there is one."""
        if self.average is None:
            return self.model
        averaged: Classifier = self.average.module
        return averaged

    def train_mode(self) -> None:
        train_mode(self.model, self.span.stage, self.frozen)

    def update(self, batches: Sequence[tuple[Tensor, Tensor]], lr: float) -> Tensor:
        """One update from the forward passes ``batches`` of (images [b, C, H, W], targets [B, …]).

        Returns:
            The mean loss over the batches, as a tensor on the device, so that nothing waits for it.
        """
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, (images, target) in enumerate(batches, start=1):
            last = number == len(batches)
            # Gradients of several forward passes add up here, and are exchanged once.
            with nullcontext() if last or self.processes.world == 1 else self._forward.no_sync():
                with autocast(self.device, self.precision):
                    outputs: TrainOutputs = self._forward(images)
                loss = self._loss(outputs, target) / len(batches)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.config.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self.config.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.updates += 1
        if self.average is not None:
            self.average.update(self.model, step=self.updates)
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _loss(self, outputs: TrainOutputs, target: Tensor) -> Tensor:
        """The loss of the whole batch, and its share of the auxiliary head's where the backbone has one."""
        gather: Callable[[Tensor], Tensor] = lambda part: gather_batch(part, self.processes)  # noqa: E731
        logits = gather(outputs.logits)
        features = [gather(outputs.features)] if self.loss.needs_features else []
        loss: Tensor = self.loss(logits, target, *features)
        if outputs.aux_logits is not None:
            loss = loss + self.config.aux_weight * self.loss(gather(outputs.aux_logits), target, *features)
        return loss

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds of this object."""
        return {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.updates,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``, after ``begin_stage`` of the stage that the state is of."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]

    def _wrapped_forward(self) -> Any:
        forward: Any = _TrainingForward(self.model)
        if self.processes.world > 1:
            devices = [self.device.index] if self.device.type == "cuda" else None
            forward = nn.parallel.DistributedDataParallel(forward, device_ids=devices, gradient_as_bucket_view=True)
        return torch.compile(forward) if self.config.compile else forward


def _average_of(model: Classifier, config: TrainConfig) -> Any:
    """timm's running average, whose decay rises from 0 in the first updates, so that a short run is not half noise."""
    if config.ema is None:
        return None
    from timm.utils import ModelEmaV3  # noqa: PLC0415 - timm takes seconds, and is there once a model is built

    return ModelEmaV3(model, decay=config.ema, use_warmup=True)


def _with_shared_statistics(model: Classifier, processes: Processes, device: torch.device) -> Classifier:
    """On several GPUs BatchNorm takes its statistics over the whole batch; torch cannot do that on CPUs."""
    if processes.world == 1 or device.type != "cuda":
        return model
    from timm.layers import convert_sync_batchnorm  # noqa: PLC0415 - as above

    converted: Classifier = convert_sync_batchnorm(model)
    return converted
