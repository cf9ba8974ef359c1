"""Device, number precision and threads: what the settings ask for, and what this machine can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from raregrade.config import TrainConfig
from raregrade.errors import ConfigError


def choose_device(local_rank: int = 0) -> torch.device:
    """The GPU if there is one, else the CPU: the same command runs on both.

    Args:
        local_rank: number of this process on its machine, and so of its GPU.

    Raises:
        ConfigError: more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}. "
            "Start as many processes as GPUs: torchrun --nproc-per-node gpu"
        )
    return torch.device("cuda", local_rank)


def choose_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What ``config.precision`` names; ``auto`` is bfloat16 where the device computes in it, float16 on older GPUs.

    Raises:
        ConfigError: float16 on a CPU, which computes it more slowly than float32.
    """
    if config.precision == "float32":
        return torch.float32
    if config.precision == "bfloat16":
        return torch.bfloat16
    if config.precision == "float16":
        if device.type != "cuda":
            raise ConfigError("train.precision: float16 needs a GPU; use auto, bfloat16 or float32 on a CPU")
        return torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
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
    On a GPU, ``deterministic`` allows only algorithms that repeat to the last bit; else the fastest are measured.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        # Read when cuBLAS starts, so it has to be there before the first product on the GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if config.deterministic:  # else as it was; the call imports much, for which memory may not suffice
            torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _cpu_computes_bfloat16() -> bool:
    """Emulated bfloat16 is slower than float32, so the flags of the processor decide."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
