"""Device, number precision and threads: what the settings ask for, and what this machine can do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from raregrade.config import TrainConfig


def choose_device() -> torch.device:
    """The GPU if there is one, else the CPU: the same command runs on both."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where ``precision`` allows it and the device computes in it, else float32."""
    if config.precision == "float32":
        return torch.float32
    if config.precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision for a forward pass; nothing in float32."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


@contextmanager
def training_process(config: TrainConfig) -> Iterator[None]:
    """Fix the threads, on which the last bits of the weights depend, and flush subnormal numbers, while a model trains.

    A margin loss with a scale of 30 produces subnormal probabilities, which most CPUs compute a hundred times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _cpu_computes_bfloat16() -> bool:
    """Emulated bfloat16 is slower than float32, so the flags of the processor decide."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
