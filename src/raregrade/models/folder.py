"""The model folder: ``weights.safetensors`` and ``model.json``, all that prediction needs.

``model.json`` (the card) says how to build the network, what its outputs mean, and what it was trained
on. Loading runs no training code and reads no pickle.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.atomic import atomic_file, write_text
from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.labels import LabelSpace
from raregrade.models.decisions import decision_of_card
from raregrade.models.outputs import probabilities

CARD = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA = 1
_AUXILIARY = "auxiliary."  # weights of a head that serves training alone


def save_model(folder: Path, model: Any, card: dict[str, Any]) -> None:
    """Write ``model`` (a ``Classifier`` or its state dict), without its auxiliary head, and its card to ``folder``."""
    from safetensors.torch import save_file  # noqa: PLC0415

    state = model if isinstance(model, dict) else model.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary)
    write_text(folder / CARD, json.dumps({"schema": SCHEMA, **card}, indent=2, sort_keys=True) + "\n")


def read_card(folder: Path) -> dict[str, Any]:
    """Read and check ``model.json`` without building the network. Raises ModelError where it is missing or wrong."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ModelError(f"{folder} is not a model folder: it has no {CARD}. `raregrade train` makes one.") from err
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise ModelError(f"{path} cannot be read: {err}. Train the model again.") from err
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        found = card.get("schema") if isinstance(card, dict) else type(card).__name__
        raise ModelError(f"{path}: schema {found!r} is not {SCHEMA}; this version of raregrade cannot read it")
    return card


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights file: the model's identity."""
    with (Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(folder: Path, device: str = "cpu") -> LoadedModel:
    """Build the network of a model folder and load its weights.

    Raises:
        ModelError: not a model folder, or card and weights do not belong together.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from raregrade.models.backbone import build_model  # noqa: PLC0415

    card = read_card(folder)
    training_alone = {"pretrained": False, "weights": "", "aux_weight": 0.0}
    # Of the settings those of the network alone: what of the training is refused today was trained all the same.
    network = {name: card["train"][name] for name in ("backbone", "stem", "dropout")}
    train = TrainConfig.model_validate({**network, **training_alone})
    model = build_model(
        train,
        channels=card["channels"],
        num_outputs=card["num_outputs"],
        head_kind=card["head"]["kind"],
        head_scale=card["head"]["scale"],
        image_size=card["image_size"],
    )
    try:
        model.load_state_dict(load_file(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as err:
        raise ModelError(f"{Path(folder) / WEIGHTS} does not fit {CARD} beside it: {err}") from err
    return LoadedModel(model.to(device).eval(), card, device)


class LoadedModel:
    """A trained network with its card, ready to predict."""

    def __init__(self, network: Any, card: dict[str, Any], device: str) -> None:
        self.network = network
        self.card = card
        self.device = device
        self.label_space = LabelSpace.from_json(card["label_space"])
        self.decision = decision_of_card(card)
        self.image_size: int = card["image_size"]
        self.channels: int = card["channels"]

    def predict(self, images: npt.NDArray[np.uint8], batch_size: int = 256) -> npt.NDArray[np.float32]:
        """Logits float32 [N, O] of ``images`` uint8 [N, H, W, C], computed in float32 on any device.

        Raises:
            ModelError: the images' height, width or channels are not those of the model.
        """
        import torch  # noqa: PLC0415

        expected = (self.image_size, self.image_size, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ModelError(f"the model takes images of shape {expected} (H, W, C), got {images.shape[1:]}")
        logits = [np.zeros((0, self.card["num_outputs"]), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(np.array(images[start : start + batch_size]))
                embedded = self.network.features(batch.to(self.device).permute(0, 3, 1, 2))
                logits.append(self.network.head(embedded).float().cpu().numpy())
        return np.concatenate(logits)

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Probabilities [N, K] of ``logits`` [N, O], as the loss declared them."""
        return probabilities(self.card["output"], logits)
