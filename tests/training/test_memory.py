"""Out of memory: recognised, and answered with settings that need less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raregrade.config import TrainConfig
from raregrade.training.memory import is_out_of_memory, out_of_memory_error, peak_bytes

CPU = torch.device("cpu")


def failed_allocation() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**18, dtype=torch.uint8)
    return caught.value


def test_what_torch_and_numpy_say_without_memory_is_recognised() -> None:
    assert is_out_of_memory(failed_allocation())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(MemoryError) as caught:
        np.ones(10**18, dtype=np.uint8)
    assert is_out_of_memory(caught.value)


def test_other_mistakes_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("out of range"))


@pytest.mark.parametrize(
    ("accumulate", "images", "advice"),
    [(1, 512, "train.accumulate=2"), (4, 128, "train.accumulate=8")],
)
def test_half_of_the_images_is_proposed(accumulate: int, images: int, advice: str) -> None:
    config = TrainConfig(batch_size=512, accumulate=accumulate)
    message = str(out_of_memory_error(failed_allocation(), config, CPU, images))
    assert f"too little memory for {images} images at once (train.batch_size = 512" in message
    assert f"Set {advice}, which keeps the batch" in message
    assert "or train.batch_size=256" in message


def test_where_a_single_image_does_not_fit_the_advice_is_another() -> None:
    message = str(out_of_memory_error(failed_allocation(), TrainConfig(batch_size=1), CPU, 1))
    assert message.endswith("(train.batch_size = 1). Take a smaller data.image_size or another train.backbone.")


def test_the_peak_is_that_of_the_process() -> None:
    before = peak_bytes(CPU)
    block = np.ones(max(0, before) // 8 + 25_000_000)
    assert peak_bytes(CPU) >= block.nbytes
