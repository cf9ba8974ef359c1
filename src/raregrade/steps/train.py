"""Step ``train``: one model with one loss and one seed, from a prepared dataset to a model folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config import TrainSection
from raregrade.config.model import DEFAULT_SELECTION
from raregrade.data.manifest import PreparedDataset
from raregrade.steps.identity import dataset_identity
from raregrade.tracking import Tracking, git_commit, start_step

HISTORY = "history.csv"


def train(
    section: TrainSection,
    data: Path,
    out: Path,
    *,
    seed: int,
    tracking: Tracking,
    checkpoints: Path | None = Path(".raregrade/checkpoints"),
    resume: bool = True,
) -> dict[str, Any]:
    """Train and write the model folder ``out``: ``weights.safetensors``, ``model.json``, ``history.csv``.

    Args:
        section: what ``config.section(params, "train", loss)`` returns.
        data: a prepared dataset.
        out: the model folder; appears when training is done, not before.
        seed: of initial weights, order and augmentation.
        tracking: where the run is logged.
        checkpoints: folder for checkpoints of interrupted runs; None keeps none.
        resume: False throws an interrupted run away and starts anew.

    Returns:
        The model card.

    Raises:
        UserError: the dataset, the backbone or a combination of settings is wrong.
        InterruptedRunError: SIGINT or SIGTERM arrived; run again to resume.
    """
    dataset = PreparedDataset.open(data)
    identity = dataset_identity(dataset)
    from raregrade.models.folder import save_model
    from raregrade.training.checkpoint import open_checkpoint, run_key
    from raregrade.training.loop import fit
    from raregrade.training.progress import TrainingProgress

    loss = section.loss
    asked = section.train.selection_metric
    metric = DEFAULT_SELECTION[dataset.label_space.task] if asked == "auto" else asked
    key = run_key(
        {"section": section.model_dump(mode="json"), "data": dataset.content_hash, "seed": seed, "version": __version__}
    )
    with (
        start_step(
            tracking.for_dataset(dataset.content_hash), "train", name=f"train {loss.name} seed {seed}", data=identity
        ) as run,
        open_checkpoint(checkpoints, key) as checkpoint,
        TrainingProgress(f"{loss.name} seed {seed}", metric) as progress,
    ):
        run.log_params({"loss": loss.name, "kind": loss.kind, "seed": seed})
        run.log_params({f"loss.{k}": v for k, v in loss.params.model_dump(mode="json").items()})
        run.log_params({f"train.{k}": v for k, v in section.train.model_dump(mode="json").items()})
        if not resume:
            checkpoint.remove()
        result = fit(section, dataset, seed=seed, metric=metric, reporter=progress, checkpoint=checkpoint)
        for row in result.history:
            run.log_metrics({k: v for k, v in row.items() if k != "epoch"}, step=int(row["epoch"]))
        card = {
            "loss": loss.model_dump(mode="json"),
            "seed": seed,
            "train": section.train.model_dump(mode="json"),
            "backbone": section.train.backbone,
            "head": {"kind": result.loss.head.kind, "scale": result.loss.head.scale},
            "output": result.loss.output,
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
        with atomic_folder(out) as folder:
            save_model(folder, result.weights, card)
            _write_history(folder / HISTORY, result.history)
        checkpoint.remove()
        run.log_metrics({f"best_val_{metric}": result.best_value, "best_epoch": result.best_epoch})
        run.log_artifacts(out / "model.json")
        run.log_artifacts(out / HISTORY)
    return card


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(key for row in history for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)
