"""Record learning curves over a grid of loss parameters: the table on which ``tuning.py`` replays studies.

Every setting of the grid is trained by raregrade's own training loop on the phantom, with several seeds. The phantom
is made hard on purpose (few patients, faint findings, noisy labels), so that the settings differ and so do the seeds.
"""

from __future__ import annotations

import csv
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCHS = 27  # 3³: Hyperband's brackets with a reduction factor of 3 all end on whole epochs
COLUMNS = ("loss", "power", "alpha", "beta", "seed", "epoch", "val_qwk", "val_macro_f1", "train_loss")
_LMF_STEPS = (0.1, 0.271, 0.737, 2.0)  # four steps of equal ratio over the range that is searched
_DRAWN_FROM = 35


@dataclass(frozen=True)
class Task:
    """One loss with its grid, and the dataset and metric that it is judged on."""

    loss: str
    metric: str
    grid: tuple[dict[str, float], ...]
    phantom: dict[str, Any]
    labels: dict[str, Any]
    seeds: tuple[int, ...]


TASKS = {
    "cdw_ce": Task(
        "cdw_ce",
        "qwk",
        tuple({"power": float(power)} for power in range(1, 11)),
        {"flavour": "ordinal", "patients": 320, "label_noise": 0.15, "contrast": 0.7},
        {"task": "ordinal", "classes": ["none", "mild", "moderate", "severe"]},
        seeds=(1, 2, 3, 4, 5),
    ),
    "lmf": Task(
        "lmf",
        "macro_f1",
        tuple({"alpha": alpha, "beta": beta} for alpha, beta in itertools.product(_LMF_STEPS, _LMF_STEPS)),
        {"flavour": "imbalanced", "patients": 480, "label_noise": 0.05, "contrast": 1.5},
        {
            "task": "multiclass",
            "classes": ["uniform", "globular", "reticular", "clustered", "rimmed", "starburst"],
        },
        seeds=(1, 2, 3),
    ),
}
_TRAIN = {
    "backbone": "test_resnet",
    "epochs": EPOCHS,
    "batch_size": 32,
    "lr": 3e-3,
    "weight_decay": 0.05,
    "precision": "float32",
    "threads": 1,
}


def record(table: Path, losses: tuple[str, ...]) -> None:
    """Append to ``table`` the curves of ``losses`` that it lacks; a run is written when it is complete."""
    done = recorded(table)
    with tempfile.TemporaryDirectory() as folder:
        for name in losses:
            task = TASKS[name]
            missing = [
                (setting, seed) for seed in task.seeds for setting in task.grid if _key(name, setting, seed) not in done
            ]
            if not missing:
                continue
            dataset = prepare_phantom(task, Path(folder) / name)
            for number, (setting, seed) in enumerate(missing, 1):
                start = time.monotonic()
                rows = list(_curve(task, dataset, setting, seed))
                _append(table, rows)
                said = ", ".join(f"{key} {value:g}" for key, value in setting.items())
                best = max(float(row[f"val_{task.metric}"]) for row in rows)
                print(
                    f"{number}/{len(missing)} {name} {said}, seed {seed}: best {task.metric} {best:.3f}, "
                    f"{time.monotonic() - start:.0f} s",
                    flush=True,
                )


def recorded(table: Path) -> set[tuple[Any, ...]]:
    """The runs that ``table`` holds, as (loss, setting, seed)."""
    if not table.exists():
        return set()
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {name: tuple(task.grid[0]) for name, task in TASKS.items()}
    return {_key(r["loss"], {n: float(r[n]) for n in names[r["loss"]]}, int(r["seed"])) for r in rows}


def _key(loss: str, setting: dict[str, float], seed: int) -> tuple[Any, ...]:
    return loss, tuple(sorted(setting.items())), seed


def prepare_phantom(task: Task, folder: Path) -> Any:
    """Draw and prepare the phantom of ``task``; the prepared dataset."""
    from raregrade.config import DataConfig, PhantomConfig, SplitConfig  # noqa: PLC0415 - replaying needs none of these
    from raregrade.data.phantom import draw_phantom  # noqa: PLC0415
    from raregrade.data.prepare import prepare_dataset  # noqa: PLC0415

    size = 32
    draw_phantom(PhantomConfig(image_size=size, **task.phantom), _DRAWN_FROM, folder / "raw")
    data = DataConfig(
        source="phantom",
        path=str(folder / "raw"),
        image_size=size,
        color="grey",
        split=SplitConfig(val=0.4, test=0.1),
        **task.labels,
    )
    return prepare_dataset(data, _DRAWN_FROM, folder / "prepared")


def _curve(task: Task, dataset: Any, setting: dict[str, float], seed: int) -> Iterator[dict[str, Any]]:
    """One row per epoch of one training run."""
    from raregrade.config import TrainSection  # noqa: PLC0415
    from raregrade.training.checkpoint import Checkpoint  # noqa: PLC0415
    from raregrade.training.loop import fit  # noqa: PLC0415
    from raregrade.training.reporter import Reporter  # noqa: PLC0415

    section = TrainSection.model_validate(
        {"train": _TRAIN, "loss": {"name": task.loss, "kind": task.loss, "params": setting}}
    )
    result = fit(section, dataset, seed=seed, metric=task.metric, reporter=Reporter(), checkpoint=Checkpoint(None))
    for row in result.history:
        yield {
            "loss": task.loss,
            **setting,
            "seed": seed,
            "epoch": int(row["epoch"]),
            f"val_{task.metric}": f"{row[f'val_{task.metric}']:.4f}",
            "train_loss": f"{row['train_loss']:.4f}",
        }


def _append(table: Path, rows: list[dict[str, Any]]) -> None:
    new = not table.exists()
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
