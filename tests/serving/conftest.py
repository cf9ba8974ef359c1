"""Real model folders with random weights: what they predict means nothing, but is always the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raregrade.config import TrainConfig
from raregrade.labels import LabelSpace
from raregrade.models.folder import save_model

SPACES = {
    "ordinal": LabelSpace("ordinal", ("none", "mild", "severe")),
    "multilabel": LabelSpace("multilabel", ("opacity", "effusion", "oedema")),
}
MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """``make_model(task="ordinal", channels=3, seed=0, name=…)`` writes a model folder for 32 px images."""

    def make(task: str = "ordinal", channels: int = 3, seed: int = 0, name: str = "model") -> Path:
        import torch

        from raregrade.models.backbone import build_model

        torch.manual_seed(seed)
        train = TrainConfig(backbone="test_resnet")
        space = SPACES[task]
        model = build_model(train, channels=channels, num_outputs=space.num_classes)
        model.set_normalisation([128.0] * channels, [40.0] * channels)
        card = {
            "loss": {"name": "ce", "kind": "ce", "params": {}},
            "seed": seed,
            "train": train.model_dump(mode="json"),
            "backbone": train.backbone,
            "head": {"kind": "linear", "scale": 1.0},
            "output": "sigmoid" if task == "multilabel" else "softmax",
            "num_outputs": space.num_classes,
            "label_space": space.to_json(),
            "image_size": 32,
            "channels": channels,
            "dataset": {"content_hash": "c" * 64, "dvc_md5": None, "source": "phantom"},
        }
        save_model(tmp_path / name, model, card)
        return tmp_path / name

    return make
