"""Step ``train``: one model with one loss and one seed, from a prepared dataset to a model folder."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raregrade import __version__
from raregrade.atomic import WriteError, atomic_folder, check_writable
from raregrade.config import TrainSection
from raregrade.config.metrics import DEFAULT_SELECTION
from raregrade.config.tuned import tuned_facts, tuned_section
from raregrade.data.manifest import PreparedDataset
from raregrade.steps.identity import dataset_identity
from raregrade.tracking import DatasetIdentity, StepRun, Tracking, git_commit, start_step
from raregrade.training.reporter import Reporter

if TYPE_CHECKING:
    from raregrade.training.checkpoint import Checkpoint
    from raregrade.training.progress import TrainingProgress
    from raregrade.training.result import FitResult

HISTORY = "history.csv"
CURVES = "curves.png"


def train(
    section: TrainSection,
    data: Path,
    out: Path,
    *,
    seed: int,
    fold: int | None = None,
    loss_params: Path | None = None,
    tracking: Tracking,
    checkpoints: Path | str | None = Path(".raregrade/checkpoints"),
    save_minutes: float = 5.0,
    resume: bool = True,
) -> dict[str, Any]:
    """Train and write the model folder ``out``: weights, model card, and the history as a table and as a picture.

    Under ``torchrun`` every process calls this; the main one alone writes and logs.

    Args:
        section: what ``config.section(params, "train", loss)`` returns.
        data: a prepared dataset.
        out: the model folder; appears when training is done, not before.
        seed: of initial weights, order and augmentation.
        fold: of cross-validation, which validates while the other folds train; None uses the fixed split.
        loss_params: a best.yaml of ``raregrade tune``, whose parameters replace those of ``section``; the model's loss
            is then called ``<loss>-tuned``.
        tracking: where the run is logged.
        checkpoints: folder or ``s3://bucket/prefix`` for checkpoints of interrupted runs; None keeps none.
        save_minutes: how often a run is saved within an epoch; it is saved after every epoch too.
        resume: False throws an interrupted run away and starts anew.

    Returns:
        The model card.

    Raises:
        UserError: the dataset, the backbone or a combination of settings is wrong; ``out`` or ``checkpoints`` cannot be
            written, which is found out before training.
        InterruptedRunError: SIGINT or SIGTERM arrived; run again to resume.
    """
    tuned = None
    if loss_params is not None:
        section, tuned = tuned_section(section, loss_params), tuned_facts(loss_params)
    dataset = PreparedDataset.open(data, fold=fold)
    identity = dataset_identity(dataset)
    check_writable(out)
    from raregrade.training.checkpoint import Checkpoint, open_checkpoint, run_key
    from raregrade.training.distributed import processes_of_environment
    from raregrade.training.loop import fit
    from raregrade.training.progress import TrainingProgress

    processes = processes_of_environment()
    loss = section.loss
    asked = section.train.selection_metric
    metric = DEFAULT_SELECTION[dataset.label_space.task] if asked == "auto" else asked
    if not processes.is_main:
        result = fit(
            section,
            dataset,
            seed=seed,
            metric=metric,
            reporter=Reporter(),
            checkpoint=Checkpoint(None),
            processes=processes,
        )
        return _model_card(section, dataset, identity, result, seed=seed, metric=metric, tuned=tuned)
    key = run_key(
        {
            "section": section.model_dump(mode="json"),
            "data": dataset.content_hash,
            "seed": seed,
            "fold": fold,
            "version": __version__,
        }
    )
    with (
        start_step(
            tracking.for_dataset(dataset.content_hash), "train", name=f"train {loss.name} seed {seed}", data=identity
        ) as run,
        TrainingProgress(f"{loss.name} seed {seed}", metric) as progress,
        open_checkpoint(checkpoints, key, progress.note) as checkpoint,
    ):
        run.log_params({"loss": loss.name, "kind": loss.kind, "seed": seed})
        run.log_params({f"loss.{k}": v for k, v in loss.params.model_dump(mode="json").items()})
        run.log_params({f"train.{k}": v for k, v in section.train.model_dump(mode="json").items()})
        if not resume:
            checkpoint.remove()
        result = fit(
            section,
            dataset,
            seed=seed,
            metric=metric,
            reporter=_ProgressAndLog(progress, run),
            checkpoint=checkpoint,
            save_minutes=save_minutes,
            processes=processes,
        )
        card = _model_card(section, dataset, identity, result, seed=seed, metric=metric, tuned=tuned)
        try:
            with atomic_folder(out) as folder:
                _write_model(folder, result, card)
        except WriteError as err:
            raise _with_rescue(err, result, card, checkpoint) from err
        checkpoint.remove()
        run.log_metrics({f"best_val_{metric}": result.best_value, "best_epoch": result.best_epoch})
        run.log_artifacts(out / "model.json")
        run.log_artifacts(out / HISTORY)
        run.log_artifacts(out / CURVES)
    return card


class _ProgressAndLog(Reporter):
    """Tells both what a person sees and the MLflow run, which has every epoch as soon as it is over.

    A run that is resumed is a new one in MLflow, and gets the epochs of the process before it as well.
    """

    def __init__(self, progress: TrainingProgress, run: StepRun) -> None:
        self.progress = progress
        self.run = run

    def started(
        self, *, resumed_at: int, epochs: int, images: int, device: str, precision: str, processes: int
    ) -> None:
        self.progress.started(
            resumed_at=resumed_at,
            epochs=epochs,
            images=images,
            device=device,
            precision=precision,
            processes=processes,
        )

    def restored(self, history: Sequence[dict[str, float]]) -> None:
        self.progress.restored(history)
        for row in history:
            self._log(row)

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:
        self.progress.step(epoch, step, steps, images, loss)

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        self.progress.epoch(row, best=best)
        self._log(row)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def _log(self, row: dict[str, float]) -> None:
        self.run.log_metrics({k: v for k, v in row.items() if k != "epoch"}, step=int(row["epoch"]))


def _model_card(
    section: TrainSection,
    dataset: PreparedDataset,
    identity: DatasetIdentity,
    result: FitResult,
    *,
    seed: int,
    metric: str,
    tuned: dict[str, Any] | None,
) -> dict[str, Any]:
    """All that prediction, registration and a reader of model.json have to know of the model."""
    from raregrade.models.decisions import decision_of

    return {
        "loss": section.loss.model_dump(mode="json"),
        "tuned": tuned,
        "seed": seed,
        "fold": dataset.fold,
        "train": section.train.model_dump(mode="json"),
        "backbone": section.train.backbone,
        "initial_weights": result.initial_weights,
        "head": {"kind": result.loss.head.kind, "scale": result.loss.head.scale},
        "output": result.loss.output,
        "decision": decision_of(result.loss.decision, dataset.label_space).to_json(),
        "num_outputs": result.loss.num_outputs,
        "label_space": dataset.label_space.to_json(),
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "mean": result.mean,
        "std": result.std,
        "statistics": result.statistics.to_json(),
        "dataset": {
            "content_hash": identity.content_hash,
            "dvc_md5": identity.dvc_md5,
            "source": identity.source,
            "num_images": identity.num_images,
        },
        "git_commit": git_commit(),
        "selection": {"metric": metric, "epoch": result.best_epoch, "value": result.best_value},
        "raregrade_version": __version__,
    }


def _write_model(folder: Path, result: FitResult, card: dict[str, Any]) -> None:
    from raregrade.models.folder import save_model
    from raregrade.training.curves import write_curves
    from raregrade.training.stages import plan_stages

    save_model(folder, result.weights, card)
    _write_history(folder / HISTORY, result.history)
    spans = plan_stages(result.loss.stages, card["train"]["epochs"])
    stages = [span.first for span in spans[1:]]
    write_curves(result.history, folder, card["selection"]["metric"], best_epoch=result.best_epoch, stages=stages)


def _with_rescue(error: WriteError, result: FitResult, card: dict[str, Any], checkpoint: Checkpoint) -> WriteError:
    """``error``, after the weights that took hours were put where there is room, and where that is."""
    if checkpoint.keeps and not checkpoint.problem:
        return error.with_note(f"The training is done and kept in {checkpoint.place}: nothing is trained again.")
    rescue = Path(tempfile.mkdtemp(prefix="raregrade-model-"))
    try:
        _write_model(rescue, result, card)
    except (OSError, WriteError):
        shutil.rmtree(rescue, ignore_errors=True)
        return error.with_note("The weights could not be kept anywhere else either.")
    return error.with_note(f"The model was written to {rescue} instead: move it from there.")


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(key for row in history for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)
