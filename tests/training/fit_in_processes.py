"""Run under torchrun: train with each loss that is named, and let the main process write the histories as JSON.

Usage: fit_in_processes.py PREPARED OUT LOSS...
"""

import json
import sys
from pathlib import Path

from raregrade.config import AugmentConfig, LossChoice, TrainConfig, TrainSection
from raregrade.data.manifest import PreparedDataset
from raregrade.losses import LOSSES
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.distributed import process_group, processes_of_environment
from raregrade.training.loop import fit
from raregrade.training.reporter import Reporter


def section(kind: str) -> TrainSection:
    params = LOSSES[kind](**({"metric": "class_center"} if kind == "two_stage" else {}))
    config = TrainConfig(
        backbone="test_convnext",  # LayerNorm: its outputs don't depend on what else is in the batch
        epochs=3,
        batch_size=16,
        accumulate=2 if kind == "focal" else 1,
        lr=1e-3,
        precision="float32",
        threads=1,
        ema=0.9 if kind == "cdw_ce" else None,
        gradient_clip=1.0,
        augment=AugmentConfig(),
    )
    return TrainSection(train=config, loss=LossChoice(name=kind, kind=kind, params=params))


def main(prepared: str, out: str, *kinds: str) -> None:
    processes = processes_of_environment()
    dataset = PreparedDataset.open(Path(prepared))
    histories = {}
    with process_group(processes):
        for kind in kinds:
            result = fit(
                section(kind),
                dataset,
                seed=1,
                metric="qwk",
                reporter=Reporter(),
                checkpoint=Checkpoint(None),
                processes=processes,
            )
            histories[kind] = result.history
    if processes.is_main:
        Path(out).write_text(json.dumps(histories), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
