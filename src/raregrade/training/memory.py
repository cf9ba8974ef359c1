"""Memory of the training process: how much it took at most, and what to do when it does not suffice.

Also what to do where a forward pass has too few images for BatchNorm: the same settings decide both.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from raregrade.atomic import megabytes
from raregrade.config import TrainConfig
from raregrade.data.loader import free_memory
from raregrade.errors import ConfigError, UserError

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
    images: int,
    attempt: Callable[[int], object] | None = None,
    *,
    for_each: int = 1,
    in_pass: int | None = None,
) -> UserError:
    """What to say of ``err``: the batch size that did not fit, and one that does.

    Memory at the moment of the failure says little: how much more the rest of the pass would have taken is not known.
    So smaller passes are tried on a GPU; on a CPU, where that takes minutes, a small one is measured.

    Args:
        err: of which ``is_out_of_memory`` holds. What its frames hold on to is let go.
        config: the batch that was asked for.
        device: what ran out of memory.
        images: how many were on the device at once.
        attempt: does the same with that many images; what it does to the weights does not matter any more.
        for_each: in validation, how many images it takes for each one in a forward pass of training.
        in_pass: images of a forward pass of training, where those at once were others.
    """
    _let_go(err, device)
    fits = None if attempt is None else _fitting(images, attempt, device)
    in_pass = images if in_pass is None else in_pass
    validation = f"{for_each} of validation for each in a forward pass of training, " if for_each > 1 else ""
    problem = (
        f"{_where(device)} has too little memory for {images} images at once ({validation}"
        f"train.batch_size = {config.batch_size}"
    )
    problem += f", train.accumulate = {config.accumulate})" if config.accumulate > 1 else ")"
    wanted = (images // 2 if fits is None else fits) // for_each
    if wanted < 1:
        fewest = "a single one" if for_each == 1 else f"{for_each}"
        also = f", and for {fewest} as well" if images > for_each or images == 1 else ""
        return UserError(f"{problem}{also}. Take a smaller data.image_size or another train.backbone.")
    # What the batch is split into has to divide it.
    parts = next(n for n in range(-(-in_pass // wanted), in_pass + 1) if in_pass % n == 0)
    tried = "" if fits is None else f"; {fits} fit"
    return UserError(
        f"{problem}{tried}. Set train.accumulate={config.accumulate * parts}, which keeps the batch and sees it in "
        f"{config.accumulate * parts} parts, or train.batch_size={max(1, config.batch_size // parts)}."
    )


def no_room_error(err: BaseException, config: TrainConfig, device: torch.device, images: int, size: int) -> UserError:
    """What to say of ``err``, of which ``is_out_of_memory`` holds, where no forward pass runs: in loading, mostly.

    Args:
        err: what its frames hold on to is let go.
        config: names the network.
        device: what ran out of memory.
        images: images of training and validation.
        size: their height and width.
    """
    _let_go(err, device)
    return UserError(
        f"{_where(device)} has too little memory for the network {config.backbone} and {images} images of {size} px. "
        "Free some, or take a smaller data.image_size or another train.backbone."
    )


def is_single_image(err: BaseException) -> bool:
    """Whether ``err`` says that BatchNorm got one value a channel: one image, whose maps have one pixel."""
    return isinstance(err, ValueError) and "more than 1 value per channel" in str(err)


def single_image_error(config: TrainConfig, *, batch: int, processes: int) -> ConfigError:
    """What to say of an error of which ``is_single_image`` holds.

    Args:
        config: the batch that was asked for.
        batch: images of the batch: fewer where the training split has no more.
        processes: that shared them.
    """
    parts = processes * config.accumulate
    shared = [f"{config.accumulate} forward passes (train.accumulate)"] if config.accumulate > 1 else []
    shared += [f"{processes} processes"] if processes > 1 else []
    split = f" in {' of each of '.join(shared)}" if shared else ""
    found = f", of which the training split has {batch}" if batch < config.batch_size else ""
    fewer = "lower train.accumulate" if config.accumulate > 1 else "use fewer processes"
    advice = f"Set train.batch_size={2 * parts} or more" + (f", or {fewer}" if parts > 1 else "")
    if found:
        advice = f"{fewer[:1].upper()}{fewer[1:]}" if parts > 1 else "Train on more images"
    return ConfigError(
        f"train.batch_size = {config.batch_size}{found}{split} is one image at a time, and BatchNorm in "
        f"{config.backbone} needs two where its maps have one pixel. {advice}, or take another train.backbone"
    )


def _where(device: torch.device) -> str:
    return f"the GPU ({megabytes(_total_bytes(device))})" if device.type == "cuda" else "this machine"


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
    while number > small and number * each > _USABLE * free_memory(device):
        number //= 2
    return number


def _largest_that_fits(images: int, attempt: Callable[[int], object], device: torch.device) -> int | None:
    """Half of ``images``, a quarter, …: the first that fits, 0 where none does, None where trying shows nothing."""
    number = images // 2
    while number:
        try:
            attempt(number)
        except Exception as err:
            if is_single_image(err):
                return 0
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


def _total_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
