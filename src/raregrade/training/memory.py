"""Memory of the training process: how much it took at most, and what to do when it does not suffice.

Also what to do where a forward pass has too few images for BatchNorm: the same settings decide both.
"""

from __future__ import annotations

import gc
import resource
import sys
import traceback

import torch

from raregrade.atomic import megabytes
from raregrade.config import TrainConfig
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
    *,
    for_each: int = 1,
    in_pass: int | None = None,
) -> UserError:
    """What to say of ``err``: how many images did not fit, and the settings that put at most half as many in a pass.

    Args:
        err: of which ``is_out_of_memory`` holds. What its frames hold on to is let go.
        config: the batch that was asked for.
        device: what ran out of memory.
        images: how many were on the device at once.
        for_each: in validation, how many images it takes for each one in a forward pass of training.
        in_pass: images of a forward pass of training, where those at once were others.
    """
    _let_go(err, device)
    in_pass = images if in_pass is None else in_pass
    validation = f"{for_each} of validation for each in a forward pass of training, " if for_each > 1 else ""
    split = f", train.accumulate = {config.accumulate}" if config.accumulate > 1 else ""
    problem = (
        f"{_where(device)} has too little memory for {images} images at once ({validation}"
        f"train.batch_size = {config.batch_size}{split})"
    )
    if in_pass < 2:
        return UserError(f"{problem}. Take a smaller data.image_size or another train.backbone.")
    # What the batch is split into has to divide it.
    parts = config.accumulate * next(n for n in range(2, in_pass + 1) if in_pass % n == 0)
    smaller = config.accumulate * max(1, config.batch_size // config.accumulate // 2)
    return UserError(
        f"{problem}. Set train.accumulate={parts}, which keeps the batch and sees it in {parts} parts, or "
        f"train.batch_size={smaller}, or take a smaller data.image_size."
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


def _let_go(err: BaseException, device: torch.device) -> None:
    """Free what the frames of a failed pass hold, so that another has the room that it would have had at first."""
    seen: BaseException | None = err
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _total_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
