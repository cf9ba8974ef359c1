"""A model folder loads back to the same predictions, and a broken one is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.labels import LabelSpace
from raregrade.models.backbone import build_model
from raregrade.models.folder import load_model, save_model, weights_sha256

SPACE = LabelSpace("ordinal", ("none", "mild", "severe"))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    train = TrainConfig(backbone="resnet10t", dropout=0.3)
    torch.manual_seed(0)
    model = build_model(train, channels=3, num_outputs=3, head_kind="cosine", head_scale=8.0).eval()
    model.set_normalisation([100.0, 110.0, 120.0], [40.0, 50.0, 60.0])
    card = {
        "train": train.model_dump(mode="json"),
        "head": {"kind": "cosine", "scale": 8.0},
        "output": "softmax",
        "num_outputs": 3,
        "label_space": SPACE.to_json(),
        "image_size": 32,
        "channels": 3,
    }
    save_model(tmp_path / "model", model, card)
    return tmp_path / "model", model


def test_a_loaded_model_predicts_what_the_saved_one_did(saved) -> None:
    folder, model = saved
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    loaded = load_model(folder)
    logits = loaded.predict(images, batch_size=7)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.array_equal(logits, expected)
    assert np.allclose(loaded.predict(images, batch_size=2), expected, atol=1e-5)
    assert np.allclose(loaded.probabilities(logits).sum(axis=1), 1)
    assert loaded.label_space == SPACE


def test_no_images_are_no_predictions(saved) -> None:
    loaded = load_model(saved[0])
    assert loaded.predict(np.zeros((0, 32, 32, 3), dtype=np.uint8)).shape == (0, 3)


def test_images_of_another_size_are_refused(saved) -> None:
    with pytest.raises(ModelError, match=r"\(32, 32, 3\).*got \(16, 16, 3\)"):
        load_model(saved[0]).predict(np.zeros((1, 16, 16, 3), dtype=np.uint8))


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder"):
        load_model(tmp_path)


def test_a_card_of_another_schema_is_refused(saved) -> None:
    path = saved[0] / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(ModelError, match="schema 99"):
        load_model(saved[0])


@pytest.mark.parametrize("damage", ["missing", "torn", "of another model"])
def test_weights_that_do_not_fit_the_card_are_refused(saved, damage: str) -> None:
    folder = saved[0]
    weights = folder / "weights.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**card, "num_outputs": 4}))
    with pytest.raises(ModelError, match=r"weights\.safetensors does not fit model\.json"):
        load_model(folder)


def test_the_identity_of_a_model_is_the_hash_of_its_weights(saved, tmp_path: Path) -> None:
    folder, model = saved
    before = weights_sha256(folder)
    save_model(tmp_path / "copy", model, {})
    assert weights_sha256(tmp_path / "copy") == before
    with torch.no_grad():
        model.mean += 1
    save_model(tmp_path / "changed", model, {})
    assert weights_sha256(tmp_path / "changed") != before
