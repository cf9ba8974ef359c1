"""Memory of the training process: how much it took at most, and what to do when it does not suffice."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from raregrade.atomic import megabytes
from raregrade.config import TrainConfig
from raregrade.errors import UserError

# What torch says where memory runs out: CUDA's libraries in their own words, and the CPU's allocator in a RuntimeError.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a primitive",  # oneDNN, whose scratch memory is not there
)
_PROBE_IMAGES = 8
# A pass is measured once, and the allocator rounds up: not all that is free can be planned for.
_USABLE = 0.8
_PEAK_RESET = Path("/proc/self/clear_refs")


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process had at once: on ``device`` where that is a GPU, else the process's own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def is_out_of_memory(err: BaseException) -> bool:
    """Whether ``err`` says that memory does not suffice, for the GPU or for the CPU."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _WORDS)


def out_of_memory_error(
    err: BaseException,
    config: TrainConfig,
    device: torch.device,
    images_per_pass: int,
    attempt: Callable[[int], object] | None = None,
) -> UserError:
    """What to say of ``err``: the batch size that did not fit, and one that does.

    Memory at the moment of the failure says little: how much more the rest of the pass would have taken is not known.
    So smaller passes are tried on a GPU; on a CPU, where that takes minutes, a small one is measured.

    Args:
        err: of which ``is_out_of_memory`` holds. What its frames hold on to is let go.
        config: the batch that was asked for.
        device: what ran out of memory.
        images_per_pass: images that were on the device at once.
        attempt: trains one pass of that many images; what it does to the weights does not matter any more.
    """
    _let_go(err, device)
    fits = None if attempt is None else _fitting(images_per_pass, attempt, device)
    where = f"the GPU ({megabytes(_total_bytes(device))})" if device.type == "cuda" else "this machine"
    problem = (
        f"{where} has too little memory for {images_per_pass} images at once (train.batch_size = {config.batch_size}"
    )
    problem += f", train.accumulate = {config.accumulate})" if config.accumulate > 1 else ")"
    if fits == 0 or images_per_pass <= 1:
        return UserError(
            f"{problem}, and for a single one as well. Take a smaller data.image_size or another train.backbone."
        )
    parts = 2 if fits is None else -(-images_per_pass // fits)
    tried = "" if fits is None else f"; {fits} fit"
    return UserError(
        f"{problem}{tried}. Set train.accumulate={config.accumulate * parts}, which keeps the batch and sees it in "
        f"{config.accumulate * parts} parts, or train.batch_size={max(1, config.batch_size // parts)}."
    )


def _fitting(images: int, attempt: Callable[[int], object], device: torch.device) -> int | None:
    """As ``_largest_that_fits``, by a measurement where that is possible."""
    small = min(max(_PROBE_IMAGES, images // 16), images // 2)  # too few vanish in what the allocator holds
    if device.type == "cuda" or not small or not _PEAK_RESET.exists():
        return _largest_that_fits(images, attempt, device)
    try:
        _PEAK_RESET.write_text("5")
        before = _peak_resident()
        attempt(small)
    except Exception:
        return _largest_that_fits(2 * small, attempt, device)  # which says what else may be wrong
    each = max(1.0, (_peak_resident() - before) / small)
    _give_back()
    number = images // 2
    while number > small and number * each > _USABLE * _free_bytes():
        number //= 2
    return number


def _largest_that_fits(images: int, attempt: Callable[[int], object], device: torch.device) -> int | None:
    """Half of ``images``, a quarter, …: the first that fits, 0 where none does, None where trying shows nothing."""
    number = images // 2
    while number:
        try:
            attempt(number)
        except Exception as err:
            if not is_out_of_memory(err):
                return None  # such as a loss that needs two images of a class
            _let_go(err, device)
        else:
            return number
        number //= 2
    return 0


def _let_go(err: BaseException, device: torch.device) -> None:
    """Free what the frames of a failed pass hold, so that another has the room that it would have had at first."""
    seen: BaseException | None = err
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        _give_back()


def _give_back() -> None:
    """Return to the system what C's allocator keeps of memory that was freed; glibc alone can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _peak_resident() -> int:
    """The most memory since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _free_bytes() -> float:
    """What this process can still get: of the machine, of its container, and of its own limit (``ulimit -v``)."""
    free = [float(psutil.virtual_memory().available)]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - psutil.Process().memory_info().vms)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        most, now = ((group / name).read_text(encoding="utf-8") for name in ("memory.max", "memory.current"))
        free.append(int(most) - int(now))
    return max(0.0, min(free))


def _total_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
