"""The MLflow model as code: MLflow runs this file to make the model, so nothing is pickled.

Input: a table with the binary column ``image``, the content of an image file in each row. Output: see
``output_columns``. The network and its weights are the model folder among the artifacts, read by the
copy of the raregrade package that is logged beside it; no training code runs.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from raregrade.serving.predictor import Predictor
from raregrade.serving.signature import IMAGE_COLUMN, MODEL_ARTIFACT, output_table


class GradingModel(PythonModel):  # type: ignore[misc]
    """Image bytes in, grades and probabilities out."""

    def load_context(self, context: Any) -> None:
        self.predictor = Predictor(context.artifacts[MODEL_ARTIFACT])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        images = [bytes(content) for content in model_input[IMAGE_COLUMN]]
        return output_table(self.predictor.predict(images), self.predictor.label_space)


mlflow.models.set_model(GradingModel())
