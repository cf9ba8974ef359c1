"""How logits become class probabilities, by name, in numpy. Prediction needs this and no loss, nor torch.

The names are what a loss declares as ``output`` and what a model folder stores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raregrade.errors import ModelError

OUTPUTS: tuple[str, ...] = ("softmax", "sigmoid", "corn", "coral")


def probabilities(output: str, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probabilities [N, K] of ``logits`` [N, num_outputs]: float64 from float64, else float32.

    ``softmax`` and ``sigmoid`` keep the width; ``corn`` and ``coral`` take K - 1 logits of thresholds and give K
    classes. Rows sum to 1, but for ``sigmoid``, whose columns are labels of their own.

    Raises:
        ModelError: unknown name, or logits that aren't [N, at least 1].
    """
    if output not in OUTPUTS:
        raise ModelError(f"unknown output {output!r}; allowed: {', '.join(OUTPUTS)}")
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ModelError(f"expected logits [N, num_outputs], got shape {list(logits.shape)}")
    # Worked in float64: a float32 model's probabilities are then right to the last digit that float32 has.
    z = logits.astype(np.float64)
    if output == "softmax":
        result = _softmax(z)
    elif output == "sigmoid":
        result = np.exp(_log_sigmoid(z))
    elif output == "corn":
        result = _steps(np.exp(np.cumsum(_log_sigmoid(z), axis=1)))
    else:
        # P(y > k) falls with k where the biases do. Where training left them unordered they are sorted, which keeps the
        # number of thresholds that are exceeded: it is by this number that the authors decide.
        result = _steps(np.exp(_log_sigmoid(-np.sort(-z, axis=1))))
    return result if logits.dtype == np.float64 else result.astype(np.float32)


def _softmax(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    e: npt.NDArray[np.float64] = np.exp(z - z.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


def _log_sigmoid(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -np.logaddexp(0.0, -z)


def _steps(exceed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Class probabilities [N, K] from falling P(y > k) [N, K - 1]."""
    edge = np.ones((len(exceed), 1))
    return -np.diff(np.hstack([edge, exceed, 0.0 * edge]), axis=1)
