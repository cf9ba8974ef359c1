"""A model folder as an MLflow model: written, registered as a version, loaded back and checked.

The MLflow model is code (``serving.mlflow_model``) with the model folder as its artifact: no pickle, and
no guessing of requirements. Everything goes through a client with an explicit URI.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import raregrade
from raregrade.errors import ModelError
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision
from raregrade.models.folder import CARD, WEIGHTS, load_model
from raregrade.registry.catalog import RegisteredVersion, download
from raregrade.tracking.connection import Connection, quiet

# Same code, same machine, same batch: what differs by more is not the same model.
_TOLERANCE = 1e-6
_CODE = Path(raregrade.__file__).parent


def log_model(
    connection: Connection, run_id: str, *, name: str, folder: Path, card: Mapping[str, Any], example: bytes
) -> Any:
    """Log the model folder as an MLflow model of run ``run_id`` and return MLflow's entity for it.

    Args:
        name: what the logged model is called, such as ``cdw_ce-seed1``.
        folder: where the weights are.
        card: the model's card as it is to be registered.
        example: content of an image file, kept as the input example.
    """
    from mlflow.entities import LoggedModelOutput

    client = connection.client
    logged = client.create_logged_model(
        connection.experiment_id,
        name=name,
        source_run_id=run_id,
        model_type="classifier",
        params={"loss": str(card["loss"]["name"]), "seed": str(card["seed"]), "backbone": str(card["backbone"])},
    )
    try:
        with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
            written = Path(scratch) / "mlflow-model"
            _write(written, Path(scratch), folder, card, example, model_id=logged.model_id, run_id=run_id)
            client.log_model_artifacts(logged.model_id, str(written))
        client.finalize_logged_model(logged.model_id, "READY")
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, models=[LoggedModelOutput(logged.model_id, step=0)])
    return logged


def check_loads_back(
    client: Any, version: RegisteredVersion, folder: Path, decision: Decision, images: npt.NDArray[np.uint8]
) -> None:
    """Load ``version`` through the registry and compare its probabilities with those of the model folder.

    Args:
        decision: how it has to decide.
        images: uint8 [N, H, W, C] of the size that the model takes.

    Raises:
        ModelError: they differ, it decides otherwise, or what was registered cannot be loaded.
    """
    import pandas as pd
    from mlflow import pyfunc

    from raregrade.serving.predictor import decide
    from raregrade.serving.signature import IMAGE_COLUMN, grade_column

    loaded = load_model(folder)
    expected = loaded.probabilities(loaded.predict(images))
    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch, _module_path_restored():
        path = download(client, version, "", Path(scratch))
        model = pyfunc.load_model(str(path))
        answer = model.predict(pd.DataFrame({IMAGE_COLUMN: [encode_png(image) for image in images]}))
    got = answer[loaded.label_space.prob_columns].to_numpy(dtype=np.float64)
    difference = float(np.abs(got - expected).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{version.name} version {version.version} loads back, but its probabilities differ from those of "
            f"{folder} by up to {difference:.2g} on {len(images)} images"
        )
    grades = [list(g) if not isinstance(g, str) else g for g in answer[grade_column(loaded.label_space)]]
    if grades != decide(got, loaded.label_space, decision):
        raise ModelError(f"{version.name} version {version.version} loads back, but does not decide by {decision}")


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """``image`` uint8 [H, W, C] as the content of a PNG file; PNG loses nothing."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="PNG")
    return buffer.getvalue()


def noise_images(card: Mapping[str, Any], number: int) -> npt.NDArray[np.uint8]:
    """Images of the model's shape where there is no dataset at hand: uint8 [number, H, W, C]."""
    shape = (number, card["image_size"], card["image_size"], card["channels"])
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _write(
    path: Path, scratch: Path, folder: Path, card: Mapping[str, Any], example: bytes, *, model_id: str, run_id: str
) -> None:
    """Write the MLflow model to ``path``."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    from raregrade.serving.signature import IMAGE_COLUMN, MODEL_ARTIFACT, model_signature, pip_requirements

    files = scratch / MODEL_ARTIFACT
    files.mkdir()
    shutil.copyfile(folder / WEIGHTS, files / WEIGHTS)
    # The card may name another decision rule than the folder's: that by which the model was judged.
    (files / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    code = scratch / "code" / _CODE.name
    shutil.copytree(_CODE, code, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    with _module_path_restored(), quiet("mlflow.pyfunc"):
        pyfunc.save_model(
            path=str(path),
            python_model=str(_CODE / "serving" / "mlflow_model.py"),
            artifacts={MODEL_ARTIFACT: str(files)},
            code_paths=[str(code)],
            signature=model_signature(LabelSpace.from_json(card["label_space"])),
            input_example=pd.DataFrame({IMAGE_COLUMN: [example]}),
            pip_requirements=pip_requirements(),
            metadata={"loss": json.dumps(card["loss"]), "seed": card["seed"], "label_space": card["label_space"]},
            mlflow_model=Model(model_id=model_id, model_uuid=model_id, run_id=run_id),
        )


@contextmanager
def _module_path_restored() -> Iterator[None]:
    """MLflow puts a model's code on the module path and leaves it there, also when the folder is gone."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def spread(rows: Sequence[int] | npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """At most ``number`` of ``rows``, evenly spread."""
    rows = np.asarray(rows, dtype=np.int64)
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(np.int64))]
