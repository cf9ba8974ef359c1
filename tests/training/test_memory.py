"""Out of memory: recognised, and answered with a batch that fits, found by trying under a real limit."""

from __future__ import annotations

import re
import subprocess
import sys

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
def test_without_a_way_to_try_half_is_proposed(accumulate: int, images: int, advice: str) -> None:
    config = TrainConfig(batch_size=512, accumulate=accumulate)
    message = str(out_of_memory_error(failed_allocation(), config, CPU, images))
    assert f"too little memory for {images} images at once (train.batch_size = 512" in message
    assert f"Set {advice}, which keeps the batch" in message
    assert "or train.batch_size=256" in message


def test_where_a_single_image_does_not_fit_the_advice_is_another() -> None:
    def attempt(number: int) -> None:
        raise MemoryError

    message = str(out_of_memory_error(failed_allocation(), TrainConfig(batch_size=8), CPU, 8, attempt))
    assert "for a single one as well" in message
    assert "data.image_size" in message


def test_a_loss_that_cannot_be_tried_on_fewer_images_leaves_it_at_half() -> None:
    def attempt(number: int) -> None:
        raise ValueError("every class needs two images")

    with pytest.raises(ValueError, match="every class"):
        attempt(1)
    message = str(out_of_memory_error(failed_allocation(), TrainConfig(batch_size=64), CPU, 64, attempt))
    assert "train.accumulate=2" in message


def test_the_peak_is_that_of_the_process() -> None:
    before = peak_bytes(CPU)
    block = np.ones(max(0, before) // 8 + 25_000_000)
    assert peak_bytes(CPU) >= block.nbytes


# The limit leaves room for a part of the images: each takes some 0.3 MB forwards, and more backwards.
_LIMITED = """
import resource, sys, torch
from raregrade.config import TrainConfig
from raregrade.training.memory import is_out_of_memory, out_of_memory_error
torch.set_num_threads(1)
layers = torch.nn.Sequential(*[torch.nn.Linear(25_000, 8), torch.nn.Linear(8, 25_000)] * 3)
def attempt(number):
    layers(images[:number]).sum().backward()
images = torch.zeros(4, 25_000)
attempt(4)
images = torch.zeros(2048, 25_000)
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000,) * 2)
try:
    attempt(2048)
except (RuntimeError, MemoryError) as err:
    assert is_out_of_memory(err), err
    failure = err
print(out_of_memory_error(failure, TrainConfig(batch_size=2048), torch.device("cpu"), 2048, attempt))
attempt(int(sys.argv[1]))
print("fits")
"""


@pytest.mark.slow
def test_the_proposed_batch_fits_into_the_memory_there_is() -> None:
    def run(number: int) -> list[str]:
        command = [sys.executable, "-c", _LIMITED, str(number)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    message = run(1)[0]
    found = re.search(r"; (\d+) fit\. Set train\.accumulate=(\d+).* or train\.batch_size=(\d+)", message)
    assert found is not None, message
    images, parts, batch = map(int, found.groups())
    assert 16 <= images < 2048
    assert images * parts == 2048
    assert batch == images
    assert run(images)[1] == "fits"
