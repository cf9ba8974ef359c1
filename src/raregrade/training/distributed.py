"""Training in several processes, as ``torchrun`` starts them: who am I, and what the processes exchange.

Every process holds the whole model and its share of each batch. The loss is computed on the gathered outputs of
the whole batch, so it is the same number for any number of processes, also for a loss that relates the images
of a batch (metric losses, weighted means).

Shapes: b images of this process, B images of the batch, O outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

from raregrade.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among ``world`` ones. The main process alone writes files and logs."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def processes_of_environment() -> Processes:
    """What ``torchrun`` says in RANK, WORLD_SIZE and LOCAL_RANK; one process where it says nothing.

    Raises:
        ConfigError: one of them is not a number, or RANK is not below WORLD_SIZE.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, world, local = (int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True))
    except ValueError as err:
        raise ConfigError(f"{', '.join(names)} must be numbers ({err}); start several processes by torchrun") from err
    if not 0 <= rank < world:
        raise ConfigError(f"RANK = {rank} is not one of WORLD_SIZE = {world}; start several processes by torchrun")
    return Processes(rank, world, local)


@contextmanager
def process_group(processes: Processes) -> Iterator[None]:
    """Connect the processes for as long as the block runs: gloo between CPUs, NCCL between GPUs."""
    if processes.world == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank)
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(positions: npt.NDArray[np.int64], processes: Processes) -> npt.NDArray[np.int64]:
    """This process's part of a batch, in the batch's order. The batch's size is a multiple of ``world``."""
    size = len(positions) // processes.world
    return positions[processes.rank * size : (processes.rank + 1) * size]


def gather_batch(outputs: Tensor, processes: Processes) -> Tensor:
    """The [b, …] ``outputs`` of all processes as [B, …], in the order of ``share``, with gradients."""
    if processes.world == 1:
        return outputs
    gathered: Tensor = _GatherBatch.apply(outputs, processes)
    return gathered


class _GatherBatch(torch.autograd.Function):
    """All-gather whose backward needs no communication.

    Every process computes the same loss of the same gathered batch, so each knows the gradient of its own
    part. DistributedDataParallel takes the mean over processes of the weights' gradients, where the sum is
    meant: hence the factor ``world``.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(outputs) for _ in range(processes.world)]
        distributed.all_gather(parts, outputs.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        processes: Processes = ctx.processes
        own = gradients[0].chunk(processes.world)[processes.rank]
        return own * processes.world, None


def gather_rows(rows: Tensor, lengths: list[int], processes: Processes) -> Tensor:
    """Concatenate [n_r, …] ``rows`` on the CPU over processes r with ``lengths`` n_r. No gradients."""
    if processes.world == 1:
        return rows
    padded = torch.zeros((max(lengths), *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def any_process(value: bool, processes: Processes) -> bool:
    """Whether ``value`` holds in one of the processes; all of them have to ask."""
    if processes.world == 1:
        return value
    flag = torch.tensor(int(value))
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def from_main(value: Any, processes: Processes) -> Any:
    """``value`` of the main process, in every process."""
    if processes.world == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def copy_buffers_of_main(module: torch.nn.Module, processes: Processes) -> None:
    """Give every process the buffers of the main process, such as BatchNorm statistics."""
    if processes.world > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)
