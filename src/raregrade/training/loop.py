"""The training loop: one model, one loss, one seed.

What a step computes depends on (parameters, data, seed, epoch, step) alone, so a run that is resumed from
a checkpoint ends with the very weights of a run that was never interrupted. Everything that a person
sees goes through a ``Reporter``; nothing here prints or knows about MLflow.

Shapes: B batch, C channels, H height, W width, O outputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raregrade.config import METRIC_TASKS, TrainSection
from raregrade.data.augment import augment
from raregrade.data.loader import ImageBatches, channel_statistics
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import InterruptedRunError, RaregradeError
from raregrade.evaluation.metrics import compute_metrics
from raregrade.labels import LabelStatistics, label_statistics
from raregrade.losses.base import Loss
from raregrade.losses.registry import create_loss
from raregrade.models.backbone import Classifier, build_model
from raregrade.models.outputs import probabilities
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.hardware import autocast, choose_device, choose_precision, training_process
from raregrade.training.interruption import Interruption, watch_for_interruption
from raregrade.training.optimisation import create_optimizer, learning_rate, set_learning_rate
from raregrade.training.order import epoch_batches
from raregrade.training.stages import Span, begin_stage, plain_state, plan_stages, train_mode

_EPOCH_SAVE_SECONDS = 30.0  # an epoch shorter than this is cheaper to repeat than to save each time
_STEP_SAVE_SECONDS = 300.0


class TrainingDivergedError(RaregradeError):
    """The loss became NaN or infinite."""


class Reporter(Protocol):
    """Who is told how training goes."""

    def started(self, *, resumed_at: int, epochs: int, images: int, device: str, precision: str) -> None: ...
    def step(self, epoch: int, step: int, steps: int, images: int) -> None: ...
    def epoch(self, row: dict[str, float]) -> None: ...


@dataclass
class FitResult:
    """The best weights and what a model card says about them.

    Attributes:
        weights: state dict of the epoch with the best validation metric.
        history: one row an epoch.
        best_epoch: counted from 1.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int
    best_value: float
    loss: Loss
    statistics: LabelStatistics
    mean: list[float]
    std: list[float]


@dataclass
class _Progress:
    """Where a run stands; all of it goes into a checkpoint."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    step_losses: list[Tensor] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = float("nan")
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    section: TrainSection,
    dataset: PreparedDataset,
    *,
    seed: int,
    metric: str,
    reporter: Reporter,
    checkpoint: Checkpoint,
) -> FitResult:
    """Train on the training split and keep the epoch that is best by ``metric`` on the validation split.

    Args:
        section: what to train and how.
        dataset: a prepared dataset; its test split is not read.
        seed: of initial weights, order and augmentation.
        metric: name of the validation metric, without split prefix; higher is better except for ``mae``.
        reporter: is told about every step and epoch.
        checkpoint: where the run is saved, and continued from.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM arrived; the run is saved.
        TrainingDivergedError: the loss is not finite; names epoch, step, learning rate and images.
    """
    with training_process(section.train), watch_for_interruption() as interruption:
        return _Fit(
            section,
            dataset,
            seed=seed,
            metric=metric,
            reporter=reporter,
            checkpoint=checkpoint,
            interruption=interruption,
        ).run()


class _Fit:
    def __init__(
        self,
        section: TrainSection,
        dataset: PreparedDataset,
        *,
        seed: int,
        metric: str,
        reporter: Reporter,
        checkpoint: Checkpoint,
        interruption: Interruption,
    ) -> None:
        self.config = section.train
        self.dataset = dataset
        self.seed = seed
        self.metric = metric
        self.reporter = reporter
        self.checkpoint = checkpoint
        self.interruption = interruption
        self.device = choose_device()
        self.precision = choose_precision(self.config, self.device)
        self.rows = dataset.rows("train")
        self.targets = dataset.targets(self.rows)
        self.val_rows = dataset.rows("val")
        self.val_targets = dataset.targets(self.val_rows)
        self.statistics = label_statistics(self.targets, dataset.label_space)
        self.mean, self.std = channel_statistics(dataset, self.rows)
        self.loss = create_loss(
            section.loss.kind,
            label_space=dataset.label_space,
            class_counts=self.statistics.class_counts,
            statistics=self.statistics,
            **section.loss.params.model_dump(),
        ).to(self.device)
        torch.manual_seed(seed)
        self.model = self._build()
        self.spans = plan_stages(self.loss.stages, self.config.epochs)
        self._begin_stage(0)
        self.images = ImageBatches(dataset, self.rows, self.device)
        self.val_images = ImageBatches(dataset, self.val_rows, self.device)
        self.progress = _Progress()
        self.saved_at = time.monotonic()

    def run(self) -> FitResult:
        resumed = self._restore()
        self.reporter.started(
            resumed_at=self.progress.epoch if resumed else 0,
            epochs=self.config.epochs,
            images=len(self.rows),
            device=str(self.device),
            precision=str(self.precision).removeprefix("torch."),
        )
        progress = self.progress
        for number in range(progress.stage, len(self.spans)):
            if number > progress.stage:
                self._enter_stage(number)
            while progress.epoch < self.spans[number].last:
                self._train_epoch()
                self._finish_epoch()
            if self.spans[number].epochs == 0:
                self._judge({"epoch": progress.epoch})
        return FitResult(
            progress.best_weights,
            progress.history,
            progress.best_epoch,
            progress.best_value,
            self.loss,
            self.statistics,
            self.mean,
            self.std,
        )

    def _build(self) -> Classifier:
        model = build_model(
            self.config,
            channels=self.dataset.channels,
            num_outputs=self.loss.num_outputs,
            head_kind=self.loss.head.kind,
            head_scale=self.loss.head.scale,
            image_size=self.dataset.image_size,
        )
        model.set_normalisation(self.mean, self.std)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _begin_stage(self, number: int) -> None:
        """Change the model as the stage asks; the optimiser starts anew with what is left to train."""
        self.loss.set_stage(number)
        begin_stage(
            self.model,
            self.spans[number].stage,
            head_kind=self.loss.head.kind,
            head_scale=self.loss.head.scale,
            tau=getattr(self.loss, "tau", 1.0),
            seed=self.seed + number,
        )
        self.optimizer = create_optimizer(self.model, self.config)

    def _enter_stage(self, number: int) -> None:
        """Go on from the best epoch of the stage before; the run's result is the best epoch of its last stage."""
        progress = self.progress
        self.model.load_state_dict(progress.best_weights)
        progress.stage, progress.best_epoch, progress.best_value = number, 0, float("nan")
        self._begin_stage(number)

    @property
    def span(self) -> Span:
        return self.spans[self.progress.stage]

    def _learning_rate(self, step: int, steps: int) -> float:
        """Of step ``step`` of the current epoch: every stage runs through the schedule once."""
        done = (self.progress.epoch - self.span.first) * steps + step
        return learning_rate(self.config, done, steps, self.span.epochs)

    def _train_epoch(self) -> None:
        progress = self.progress
        batches = epoch_batches(self.targets, self.config, self.span.stage, seed=self.seed, epoch=progress.epoch)
        train_mode(self.model, self.span.stage)
        self.loss.set_epoch(progress.epoch, self.config.epochs)
        if progress.step == 0:
            torch.manual_seed(self.seed * 1_000_003 + progress.epoch)  # dropout draws from torch's global generator
        remaining = batches[progress.step :]
        for positions, images in zip(remaining, self.images.batches(remaining), strict=True):
            set_learning_rate(self.optimizer, self._learning_rate(progress.step, len(batches)))
            progress.step_losses.append(self._train_step(positions, images))
            progress.step += 1
            self.reporter.step(progress.epoch, progress.step, len(batches), len(positions))
            self._save_if_asked(during_epoch=progress.step < len(batches))
        self._check_finite(batches)

    def _train_step(self, positions: npt.NDArray[np.int64], images: Tensor) -> Tensor:
        """One update; returns the loss as a tensor on the device, so that nothing waits for it."""
        changed = augment(
            images, self.rows[positions], seed=self.seed, epoch=self.progress.epoch, config=self.config.augment
        )
        target = torch.from_numpy(self.targets[positions]).to(self.device)
        with autocast(self.device, self.precision):
            # A frozen backbone needs no gradients, and so no memory of its activations.
            with torch.set_grad_enabled(not self.span.stage.freeze_backbone):
                features = self.model.features(changed)
            logits = self.model.classify(features)
        loss: Tensor = self.loss(logits, target, features) if self.loss.needs_features else self.loss(logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        return loss.detach()

    def _finish_epoch(self) -> None:
        progress = self.progress
        row = {"epoch": progress.epoch + 1, "train_loss": float(torch.stack(progress.step_losses).mean())}
        row |= {"lr": self.optimizer.param_groups[0]["lr"]}
        progress.epoch, progress.step, progress.step_losses = progress.epoch + 1, 0, []
        self._judge(row)
        self._save_if_asked(during_epoch=False)

    def _judge(self, row: dict[str, float]) -> None:
        """Validate, complete and keep the ``row`` of the epoch, and keep the weights where they are the best so far."""
        progress = self.progress
        metrics = self._validate()
        if self.metric not in metrics:
            raise RaregradeError(
                f"the selection metric {self.metric} is undefined on the validation split (a class without images "
                "there?); choose another train.selection_metric or prepare a split that has every class"
            )
        value = metrics[self.metric]
        row |= {f"val_{name}": v for name, v in metrics.items() if name in METRIC_TASKS}
        progress.history.append(row)
        better = value < progress.best_value if self.metric == "mae" else value > progress.best_value
        if better or progress.best_epoch == 0:
            progress.best_epoch, progress.best_value = progress.epoch, value
            progress.best_weights = plain_state(self.model)
        self.reporter.epoch(row)

    def _validate(self) -> dict[str, float]:
        """Metrics on the validation split, in float32: the very numbers that ``evaluate`` reports for these weights."""
        self.model.eval()
        order = np.arange(len(self.val_rows))
        batches = [order[start : start + 256] for start in range(0, len(order), 256)]
        with torch.inference_mode():
            logits = [self.model(images).float().cpu() for images in self.val_images.batches(batches)]
        stacked = torch.cat(logits)
        if not torch.isfinite(stacked).all():
            # The last step's loss was finite and the weights it led to are not.
            self._diverged(f"the outputs became NaN or infinite at the end of epoch {self.progress.epoch}")
        probs = probabilities(self.loss.output, stacked.numpy())
        return compute_metrics(self.val_targets, probs, self.dataset.label_space)

    def _check_finite(self, batches: list[npt.NDArray[np.int64]]) -> None:
        """Once an epoch, so that no step waits for its loss."""
        finite = torch.isfinite(torch.stack(self.progress.step_losses)).cpu().numpy()
        if finite.all():
            return
        step = int(np.flatnonzero(~finite)[0])
        lr = self._learning_rate(step, len(batches))
        names = self.dataset.manifest["image_id"].to_numpy()[self.rows[batches[step]]]
        self._diverged(
            f"the loss became NaN or infinite in epoch {self.progress.epoch + 1}, step {step + 1}, at learning rate "
            f"{lr:.3g}, on the images {', '.join(map(str, names[:8]))}{' …' if len(names) > 8 else ''}"
        )

    def _diverged(self, what: str) -> NoReturn:
        """A checkpoint of such a run would only lead here again."""
        self.checkpoint.remove()
        raise TrainingDivergedError(f"{what}. Lower train.lr, set train.gradient_clip, or train in float32.")

    def _save_if_asked(self, *, during_epoch: bool) -> None:
        due = _STEP_SAVE_SECONDS if during_epoch else _EPOCH_SAVE_SECONDS
        finished = self.progress.epoch >= self.config.epochs
        if not self.interruption.requested and (finished or time.monotonic() - self.saved_at < due):
            return
        progress = self.progress
        self.checkpoint.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
                "progress": vars(progress),
            }
        )
        self.saved_at = time.monotonic()
        if self.interruption.requested and not finished:
            kept = " and saved" if self.checkpoint.folder is not None else ""
            raise InterruptedRunError(
                f"interrupted{kept} in epoch {progress.epoch + 1} of {self.config.epochs}; "
                "run the same command again to resume"
            )

    def _restore(self) -> bool:
        state = self.checkpoint.load()
        if state is None:
            return False
        for number in range(1, state["progress"]["stage"] + 1):
            self._begin_stage(number)  # the same modules; their weights follow
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.progress = _Progress(**state["progress"])
        self.progress.step_losses = [t.to(self.device) for t in self.progress.step_losses]
        return True
