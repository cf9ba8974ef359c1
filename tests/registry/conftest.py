"""A small prepared phantom, model folders with random weights, and their true validation metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raregrade.config import DataConfig, PhantomConfig, TrainConfig
from raregrade.config.data import SplitConfig
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom
from raregrade.data.prepare import prepare_dataset
from raregrade.models.decisions import default_decision
from raregrade.models.folder import load_model, save_model
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client

MakeModel = Callable[..., Path]


@dataclass(frozen=True)
class Contest:
    """A comparison folder and the models it compares."""

    comparison: Path
    models: list[Path]


Compare = Callable[..., Contest]


def _prepare(
    folder: Path, seed: int, flavour: str = "ordinal", patients: int = 40, test: float = 0.15
) -> PreparedDataset:
    config = PhantomConfig(flavour=flavour, patients=patients, image_size=32)  # type: ignore[arg-type]
    draw_phantom(config, seed, folder / "raw")
    space = PHANTOM_LABELS[flavour]
    data = DataConfig(
        source="phantom",
        path=str(folder / "raw"),
        task=space.task,
        classes=list(space.classes),
        hierarchy=[list(edge) for edge in space.edges],
        image_size=32,
        split=SplitConfig(test=test),
    )
    return prepare_dataset(data, seed, folder / "prepared")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return _prepare(tmp_path_factory.mktemp("data"), seed=1)


@pytest.fixture(scope="session")
def other_dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """The same labels, other patients: new data."""
    return _prepare(tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture(scope="session")
def findings_dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Another label space: several findings an image."""
    return _prepare(tmp_path_factory.mktemp("findings"), seed=1, flavour="hierarchical")


@pytest.fixture(scope="session")
def large_dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Enough test patients (60) to tell a model that has learned from one that has not."""
    return _prepare(tmp_path_factory.mktemp("large"), seed=1, patients=150, test=0.4)


def _fit_head(model: Any, dataset: PreparedDataset) -> None:
    """Ridge regression of the grades on the features of a random backbone, as weights of the linear head."""
    import torch

    rows = dataset.rows("train")
    with torch.inference_mode():
        images = torch.from_numpy(np.array(dataset.images(rows))).permute(0, 3, 1, 2)
        features = model.eval().features(images).double().numpy()
    mean, sd = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled, wanted = (features - mean) / sd, np.eye(dataset.label_space.num_classes)[dataset.targets(rows)]
    gram = scaled.T @ scaled + 10 * np.eye(scaled.shape[1])
    slopes = 6 * np.linalg.solve(gram, scaled.T @ (wanted - wanted.mean(axis=0))) / sd[:, None]
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(slopes.T))
        model.head.bias.copy_(torch.from_numpy(6 * wanted.mean(axis=0) - mean @ slopes))


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """``make_model(dataset, loss, seed)`` writes a model folder; the weights depend on all three.

    The head of a model with a loss in ``learned`` is fitted to the training images, that of others is random.
    """

    def make(dataset: PreparedDataset, loss: str = "ce", seed: int = 1, learned: tuple[str, ...] = ()) -> Path:
        import torch

        from raregrade.models.backbone import build_model

        torch.manual_seed(seed + sum(map(ord, loss)))
        train = TrainConfig(backbone="test_resnet")
        space = dataset.label_space
        model = build_model(train, channels=dataset.channels, num_outputs=space.num_classes)
        model.set_normalisation([128.0] * dataset.channels, [40.0] * dataset.channels)
        if loss in learned:
            _fit_head(model, dataset)
        folder = tmp_path / "models" / dataset.content_hash[:6] / loss / str(seed)
        card = {
            "loss": {"name": loss, "kind": loss, "params": {}},
            "seed": seed,
            "train": train.model_dump(mode="json"),
            "backbone": train.backbone,
            "head": {"kind": "linear", "scale": 1.0},
            "output": "sigmoid" if space.task == "multilabel" else "softmax",
            "num_outputs": space.num_classes,
            "label_space": space.to_json(),
            "image_size": dataset.image_size,
            "channels": dataset.channels,
            "dataset": {"content_hash": dataset.content_hash, "dvc_md5": "d41d8cd9.dir", "source": "phantom"},
            "git_commit": "0123abc",
        }
        save_model(folder, model, card)
        return folder

    return make


@pytest.fixture
def compare(tmp_path: Path, make_model: MakeModel) -> Compare:
    """``compare(dataset, winner=…)`` writes comparison.json with the models' true metrics, and a lead that is shown."""

    def run(
        dataset: PreparedDataset,
        *,
        losses: tuple[str, ...] = ("ce", "cdw_ce"),
        winner: str = "cdw_ce",
        baseline: str = "ce",
        seeds: tuple[int, ...] = (1,),
        learned: tuple[str, ...] = (),
        edit: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Contest:
        folders = {(loss, seed): make_model(dataset, loss, seed, learned) for loss in losses for seed in seeds}
        own = {key: true_metrics(folder, dataset) for key, folder in folders.items()}
        decision = default_decision(dataset.label_space).to_json()
        entries: dict[str, Any] = {}
        for loss in losses:
            names = own[loss, seeds[0]]
            per_seed = {name: {str(seed): own[loss, seed][name] for seed in seeds} for name in names}
            entries[loss] = {
                "seeds": list(seeds),
                "representative": seeds[-1],
                "decision": decision,
                "alarms": [],
                "metrics": {
                    name: {"mean": sum(values.values()) / len(seeds), "per_seed": values}
                    for name, values in per_seed.items()
                },
                "difference": {},
            }
        for loss in losses:
            if loss != baseline:
                one = len(seeds) == 1
                entries[loss]["difference"] = {
                    name: {
                        "mean": entry["mean"] - entries[baseline]["metrics"][name]["mean"],
                        "se": None if one else 0.01,
                        "df": None if one else 20.0,
                        "patients_only": one,
                    }
                    for name, entry in entries[loss]["metrics"].items()
                }
        chosen = {"loss": winner, "seed": seeds[-1], "decision": decision}
        content = {
            "schema": 2,
            "selection_metric": "auroc",
            "winner": chosen,
            "recommended": dict(chosen),
            "claim": {"loss": winner, "verdict": "baseline" if winner == baseline else "better", "objection": ""},
            "advice": f"Train with {winner}.",
            "baseline": baseline,
            "label_space": dataset.label_space.to_json(),
            "dataset": {"content_hash": dataset.content_hash},
            "losses": entries,
        }
        edit(content)
        folder = tmp_path / f"comparison-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "comparison.json").write_text(json.dumps(content))
        return Contest(folder, list(folders.values()))

    return run


def true_metrics(folder: Path, dataset: PreparedDataset) -> dict[str, float]:
    """What the evaluation finds for a model, straight from the network."""
    from raregrade.evaluation.metrics import compute_metrics

    model = load_model(folder)
    found = {}
    for split in ("val", "test"):
        rows = dataset.rows(split)
        probabilities = model.probabilities(model.predict(dataset.images(rows)))
        metrics = compute_metrics(dataset.targets(rows), probabilities, dataset.label_space)
        found |= {f"{split}_{name}": value for name, value in metrics.items()}
    return found


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating one takes seconds of migrations."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path) -> Tracking:
    (tmp_path / "store").mkdir()
    database = shutil.copy(empty_database, tmp_path / "store" / "mlflow.db")
    return Tracking(f"sqlite:///{database}", "grades", group="group1")
