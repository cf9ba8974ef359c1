"""The training loop: one model, one loss, one seed, in one process or many.

What a step computes depends on (parameters, data, seed, epoch, step) alone, so a run that is resumed from
a checkpoint ends with the very weights of a run that was never interrupted. Everything that a person
sees goes through a ``Reporter``; nothing here prints or knows about MLflow.

Shapes: B images of a batch over all processes, b those of this process, C channels, H height, W width.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from raregrade.config import METRIC_TASKS, TrainSection
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.config.training import check_training
from raregrade.data.loader import channel_statistics
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import InterruptedRunError, RaregradeError
from raregrade.evaluation.metrics import compute_metrics
from raregrade.labels import label_statistics
from raregrade.losses import create_loss
from raregrade.models.backbone import Classifier, build_model
from raregrade.models.decisions import decision_of
from raregrade.models.outputs import probabilities
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.device_work import DeviceWork
from raregrade.training.distributed import Processes, any_process, copy_buffers_of_main, from_main, process_group
from raregrade.training.feed import TrainingFeed, ValidationFeed
from raregrade.training.hardware import choose_device, choose_precision, training_process
from raregrade.training.interruption import Interruption, watch_for_interruption
from raregrade.training.memory import is_out_of_memory, no_room_error
from raregrade.training.optimisation import Plateau, learning_rate
from raregrade.training.order import epoch_batches
from raregrade.training.reporter import Reporter
from raregrade.training.result import FitResult, RunProgress, TrainingDivergedError
from raregrade.training.stages import Span, plain_state, plan_stages
from raregrade.training.update import Updater

# Processes agree on an interruption this often: asking at every step would make each wait for the slowest.
_AGREE_STEPS = 10
_GPU_LOSS_STEPS = 10  # reading a loss waits for the GPU


def fit(
    section: TrainSection,
    dataset: PreparedDataset,
    *,
    seed: int,
    metric: str,
    reporter: Reporter,
    checkpoint: Checkpoint,
    save_minutes: float = 5.0,
    processes: Processes | None = None,
) -> FitResult:
    """Train on the training split and keep the epoch that is best by ``metric`` on the validation split.

    Args:
        section: what to train and how.
        dataset: a prepared dataset; its test split is not read.
        seed: of initial weights, order and augmentation.
        metric: name of the validation metric, without split prefix; higher is better except for ``mae``.
        reporter: is told about every step and epoch.
        checkpoint: where the run is saved, and continued from; the main process's counts.
        save_minutes: the run is saved after every epoch, and within an epoch after as many minutes.
        processes: this process among those that train together; None is one alone. Every process returns the same.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM arrived; the run is saved.
        TrainingDivergedError: the loss is not finite; names epoch, step, learning rate and images.
        ConfigError: settings that contradict each other or the loss.
        UserError: memory does not hold a batch; says which size would fit.
    """
    processes = processes or Processes()
    check_training(section.train, section.loss)
    with training_process(section.train), watch_for_interruption() as interruption, process_group(processes):
        try:
            return _Fit(
                section,
                dataset,
                seed=seed,
                metric=metric,
                reporter=reporter,
                checkpoint=checkpoint,
                save_minutes=save_minutes,
                processes=processes,
                interruption=interruption,
            ).run()
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
            images = len(dataset.rows("train")) + len(dataset.rows("val"))
            device = choose_device(processes.local_rank)
            raise no_room_error(err, section.train, device, images, dataset.image_size) from err


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
        save_minutes: float,
        processes: Processes,
        interruption: Interruption,
    ) -> None:
        self.config = section.train
        self.dataset = dataset
        self.seed = seed
        self.metric = metric
        self.lower_is_better = metric in LOWER_IS_BETTER
        self.reporter = reporter if processes.is_main else Reporter()
        self.checkpoint = checkpoint
        self.save_seconds = 60 * save_minutes
        self.processes = processes
        self.interruption = interruption
        self.device = choose_device(processes.local_rank)
        self.precision = choose_precision(self.config, self.device)
        self.rows = dataset.rows("train")
        self.targets = dataset.targets(self.rows)
        val_rows = dataset.rows("val")
        self.val_targets = dataset.targets(val_rows)
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
        self.updater = Updater(
            self._build(),
            self.loss,
            self.config,
            device=self.device,
            precision=self.precision,
            processes=processes,
            seed=seed,
        )
        self.spans = plan_stages(self.loss.stages, self.config.epochs)
        self.updater.begin_stage(0, self.spans[0])
        self.feed = TrainingFeed(dataset, self.rows, self.config, seed=seed, device=self.device, processes=processes)
        validation = ValidationFeed(
            dataset,
            val_rows,
            images_per_pass=self.config.batch_size // self.feed.parts,
            device=self.device,
            processes=processes,
        )
        self.work = DeviceWork(self.config, self.updater, self.feed, validation, self.loss.num_outputs)
        self.progress = RunProgress()
        self.saved_at = time.monotonic()
        self.saved = False

    def run(self) -> FitResult:
        if self.processes.is_main:
            self.checkpoint.check_space(sum(t.nbytes for t in self.updater.model.state_dict().values()))
        resumed = self._restore()
        self.reporter.started(
            resumed_at=self.progress.epoch if resumed else 0,
            epochs=self.config.epochs,
            images=len(self.rows),
            device=str(self.device),
            precision=str(self.precision).removeprefix("torch."),
            processes=self.processes.world,
        )
        if resumed:
            self.reporter.restored(self.progress.history)
        progress = self.progress
        for number in range(progress.stage, len(self.spans)):
            if number > progress.stage:
                self._enter_stage(number)
            while progress.epoch < self.span.last and not self._stops_early():
                self._train_epoch()
                self._finish_epoch()
            if self.span.epochs == 0:
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
            self.updater.model.initial_weights,
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

    def _enter_stage(self, number: int) -> None:
        """Go on from the best epoch of the stage before; the run's result is the best epoch of its last stage."""
        progress = self.progress
        self.updater.model.load_state_dict(progress.best_weights)
        progress.stage, progress.epoch = number, self.spans[number].first
        progress.best_epoch, progress.best_value, progress.plateau = 0, float("nan"), {}
        self.updater.begin_stage(number, self.spans[number])

    @property
    def span(self) -> Span:
        return self.spans[self.progress.stage]

    @property
    def finished(self) -> bool:
        progress = self.progress
        last_stage = progress.stage == len(self.spans) - 1
        return progress.epoch >= self.config.epochs or (last_stage and self._stops_early())

    def _stops_early(self) -> bool:
        patience, progress = self.config.early_stopping, self.progress
        return patience is not None and progress.best_epoch > 0 and progress.epoch - progress.best_epoch >= patience

    def _learning_rate(self, step: int, steps: int) -> float:
        """Of step ``step`` of the current epoch: every stage runs through the schedule once."""
        done = (self.progress.epoch - self.span.first) * steps + step
        scale = self.progress.plateau.get("scale", 1.0)
        return learning_rate(self.config, done, steps, self.span.epochs, scale)

    def _epoch_batches(self) -> list[npt.NDArray[np.int64]]:
        return epoch_batches(
            self.targets,
            self.config,
            self.span.stage,
            seed=self.seed,
            epoch=self.progress.epoch,
            processes=self.processes.world,
        )

    def _train_epoch(self) -> None:
        progress = self.progress
        batches = self._epoch_batches()
        self.updater.train_mode()
        self.loss.set_epoch(progress.epoch, self.config.epochs)
        remaining = batches[progress.step :]
        passes = self.feed.passes(remaining, progress.epoch)
        for batch in remaining:
            # Dropout draws from torch's global generator: seeded by step, it needs no place in a checkpoint.
            torch.manual_seed(_step_seed(self.seed, progress.epoch, progress.step, self.processes.rank))
            lr = self._learning_rate(progress.step, len(batches))
            loss = self.work.update(passes, batch, lr)
            progress.step_losses.append(loss)
            progress.step += 1
            readable = self.device.type == "cpu" or progress.step % _GPU_LOSS_STEPS == 0
            self.reporter.step(
                progress.epoch, progress.step, len(batches), len(batch), float(loss) if readable else None
            )
            if progress.step < len(batches):
                self._save_during_epoch()
        self._check_finite(batches)

    def _finish_epoch(self) -> None:
        progress = self.progress
        row = {"epoch": progress.epoch + 1, "train_loss": float(torch.stack(progress.step_losses).mean())}
        row |= {"lr": self.updater.optimizer.param_groups[-1]["lr"]}
        progress.epoch, progress.step, progress.step_losses = progress.epoch + 1, 0, []
        self._judge(row)
        stopping = self._stops_early() and progress.epoch < self.span.last
        if stopping:
            self.reporter.note(
                f"stopped early: {self.metric} has not improved for {self.config.early_stopping} epochs "
                f"since epoch {progress.best_epoch}"
            )
        agreed = any_process(self.interruption.requested, self.processes)
        self._save(wait=agreed or self.finished)
        self._leave_if_interrupted(agreed=agreed)

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
        better = value < progress.best_value if self.lower_is_better else value > progress.best_value
        best = better or progress.best_epoch == 0
        if best:
            progress.best_epoch, progress.best_value = progress.epoch, value
            progress.best_weights = plain_state(self.updater.judged)
        self.reporter.epoch(row, best=best)
        self._follow_plateau(value)

    def _follow_plateau(self, value: float) -> None:
        if self.config.schedule != "plateau":
            return
        plateau = Plateau(**self.progress.plateau)  # type: ignore[arg-type]
        if plateau.update(value, self.config, lower_is_better=self.lower_is_better):
            lr = max(self.config.lr_min, self.config.lr * plateau.scale)
            self.reporter.note(f"{self.metric} no longer improves: the learning rate falls to {lr:.3g}")
        self.progress.plateau = asdict(plateau)

    def _validate(self) -> dict[str, float]:
        """Metrics on the validation split, in float32, as ``evaluate`` reports them for these weights."""
        model = self.updater.judged
        copy_buffers_of_main(model, self.processes)
        logits = self.work.validation_logits(model)
        if not torch.isfinite(logits).all():
            # The last step's loss was finite and the weights it led to are not.
            self._diverged(f"the outputs became NaN or infinite at the end of epoch {self.progress.epoch}")
        probs = probabilities(self.loss.output, logits.numpy())
        space = self.dataset.label_space
        return compute_metrics(self.val_targets, probs, space, decision_of(self.loss.decision, space))

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
        if self.processes.is_main:
            self.checkpoint.remove()
        raise TrainingDivergedError(f"{what}. Lower train.lr, set train.gradient_clip, or train in float32.")

    def _save_during_epoch(self) -> None:
        """Between two steps: where so much time has passed, and where the process was asked to stop."""
        progress = self.progress
        asks = self.processes.world == 1 or progress.step % _AGREE_STEPS == 0
        agreed = asks and any_process(self.interruption.requested, self.processes)
        if agreed or time.monotonic() - self.saved_at >= self.save_seconds:
            self._save(wait=agreed)
        self._leave_if_interrupted(agreed=agreed)

    def _save(self, *, wait: bool) -> None:
        """All processes hold the same state; the main one writes it, unless one is still being written."""
        if self.processes.is_main:
            state = self.updater.state() | {"progress": vars(self.progress)}
            self.saved = self.checkpoint.save(state, wait=wait)
        self.saved_at = time.monotonic()

    def _leave_if_interrupted(self, *, agreed: bool) -> None:
        if not agreed or self.finished:
            return
        kept = " and saved" if self.saved else ""
        raise InterruptedRunError(
            f"interrupted{kept} in epoch {self.progress.epoch + 1} of {self.config.epochs}; "
            "run the same command again to resume"
        )

    def _restore(self) -> bool:
        state = from_main(self.checkpoint.load() if self.processes.is_main else None, self.processes)
        if state is None:
            return False
        for number in range(1, state["progress"]["stage"] + 1):
            self.updater.begin_stage(number, self.spans[number])  # the same modules; their weights follow
        self.updater.load_state(state)
        self.progress = RunProgress(**state["progress"])
        self.progress.step_losses = [t.to(self.device) for t in self.progress.step_losses]
        return True


def _step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """A number for torch's generators that no two steps of a run and no two processes share."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
