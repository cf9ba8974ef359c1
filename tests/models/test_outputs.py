import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from raregrade.models.outputs import OUTPUTS, probabilities

LOGITS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(logits=LOGITS, output=st.sampled_from(OUTPUTS))
def test_probabilities_lie_between_0_and_1_and_rows_of_classes_sum_to_1(logits, output):
    probs = probabilities(output, logits)
    wider = output in ("corn", "coral")
    assert probs.dtype == np.float32
    assert probs.shape == (len(logits), logits.shape[1] + wider)
    assert ((probs >= 0) & (probs <= 1)).all()
    if output != "sigmoid":
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_softmax_and_sigmoid_equal_torch():
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 10
    np.testing.assert_allclose(probabilities("softmax", logits), torch.tensor(logits).softmax(1), rtol=1e-12)
    np.testing.assert_allclose(probabilities("sigmoid", logits), torch.tensor(logits).sigmoid(), rtol=1e-12)
    assert probabilities("softmax", logits).dtype == np.float64


def test_corn_multiplies_conditional_probabilities():
    logits = np.random.default_rng(1).normal(size=(20, 3))
    s = 1 / (1 + np.exp(-logits))
    exceed = np.stack([s[:, 0], s[:, 0] * s[:, 1], s[:, 0] * s[:, 1] * s[:, 2]], axis=1)
    expected = np.stack([1 - exceed[:, 0], exceed[:, 0] - exceed[:, 1], exceed[:, 1] - exceed[:, 2], exceed[:, 2]], 1)
    np.testing.assert_allclose(probabilities("corn", logits), expected, rtol=1e-9, atol=1e-15)


def test_coral_takes_differences_of_ordered_thresholds():
    probs = probabilities("coral", np.array([[2.0, 0.0, -1.0]]))
    s = 1 / (1 + np.exp(-np.array([2.0, 0.0, -1.0])))
    np.testing.assert_allclose(probs[0], [1 - s[0], s[0] - s[1], s[1] - s[2], s[2]], rtol=1e-12)


def test_coral_orders_thresholds_that_are_not():
    probs = probabilities("coral", np.array([[0.0, 3.0, -1.0]]))
    np.testing.assert_array_equal(probs, probabilities("coral", np.array([[3.0, 0.0, -1.0]])))
    assert (probs >= 0).all()


def test_a_confident_model_keeps_small_probabilities():
    probs = probabilities("softmax", np.array([[0.0, -600.0]]))
    assert probs[0, 1] == pytest.approx(np.exp(-600))
    assert probabilities("sigmoid", np.array([[-600.0]]))[0, 0] == pytest.approx(np.exp(-600))


def test_an_unknown_output_and_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="softmax, sigmoid, corn, coral"):
        probabilities("argmax", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\[3\]"):
        probabilities("softmax", np.zeros(3))


def test_torch_is_not_needed():
    code = "import sys, raregrade.models.outputs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
