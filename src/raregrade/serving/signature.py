"""The columns that the MLflow model takes and returns, and the packages it needs.

Needs mlflow only inside the function that builds the signature.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import pandas as pd

from raregrade.labels import LabelSpace
from raregrade.serving.predictor import Prediction

IMAGE_COLUMN = "image"
MODEL_ARTIFACT = "model"
# What predicting imports, torch and timm with their own dependencies.
_PACKAGES = ("mlflow", "torch", "torchvision", "timm", "numpy", "pandas", "pillow", "safetensors")
_PACKAGES_OF_CONFIG = ("pydantic", "pyyaml")


def grade_column(label_space: LabelSpace) -> str:
    """``grade`` where an image has one class, ``findings`` where it has any number."""
    return "findings" if label_space.task == "multilabel" else "grade"


def output_columns(label_space: LabelSpace) -> list[str]:
    """The grade (or the list of findings), then ``prob_<class>`` of every class in order."""
    return [grade_column(label_space), *label_space.prob_columns]


def output_table(predictions: Sequence[Prediction], label_space: LabelSpace) -> pd.DataFrame:
    """``predictions`` as a table with ``output_columns``, one row per image."""
    rows = [[p.grade, *p.probabilities.values()] for p in predictions]
    return pd.DataFrame(rows, columns=output_columns(label_space))


def model_signature(label_space: LabelSpace) -> Any:
    """``mlflow.models.ModelSignature`` of the model, so that MLflow checks every request."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, DataType, Schema  # noqa: PLC0415
    from mlflow.types.schema import Array  # noqa: PLC0415

    grade = Array(DataType.string) if label_space.task == "multilabel" else DataType.string
    outputs = [ColSpec(grade, grade_column(label_space))]
    outputs += [ColSpec(DataType.double, name) for name in label_space.prob_columns]
    return ModelSignature(inputs=Schema([ColSpec(DataType.binary, IMAGE_COLUMN)]), outputs=Schema(outputs))


def pip_requirements() -> list[str]:
    """What the model needs, at the versions that are installed here; inferring them takes MLflow 20 s.

    A local part of a version (``2.15.0+cpu``) is left out: no index serves it.
    """
    names = (*_PACKAGES, *_PACKAGES_OF_CONFIG)
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]
