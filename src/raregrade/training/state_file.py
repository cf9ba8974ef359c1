"""The file of one checkpoint: a nested dict of tensors and plain values, with a checksum behind it.

torch's own format has no checksum that reading tests; a file cut short on a disk that filled up, or bytes that a
disk lost, would be trained on. Where files lie is the business of ``checkpoint`` and ``remote_checkpoint``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import IO, Any

import torch
from torch import Tensor

_MAGIC = b"RAREGRADE-STATE1"
_TRAILER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size


def write_state(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write ``state`` and its checksum.

    Raises:
        OSError: whatever writing to ``file`` raises, such as that the disk is full.
    """
    hashed = _HashedFile(file)
    try:
        torch.save(state, hashed)  # type: ignore[arg-type]
    except RuntimeError as err:
        raise hashed.error or err from None
    hashed.write(_MAGIC + hashed.digest())
    file.flush()


def read_state(file: IO[bytes]) -> dict[str, Any] | None:
    """Inverse of ``write_state``, with tensors on the CPU; None where the checksum is missing or wrong.

    Tensors and plain values alone are read: a file that somebody else put there runs no code.
    """
    size = file.seek(0, os.SEEK_END) - _TRAILER_BYTES
    if size <= 0:
        return None
    file.seek(size)
    trailer = file.read(_TRAILER_BYTES)
    file.seek(0)
    if trailer != _MAGIC + _digest(file, size):
        return None
    file.seek(0)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) else None


def state_bytes(state: object) -> int:
    """Bytes of the tensors in ``state``: about the size of its file."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(state_bytes, state.values()))
    return sum(map(state_bytes, state)) if isinstance(state, list | tuple) else 0


def on_cpu(value: Any, buffer: Any = None) -> Any:
    """A copy of a state on the CPU, which further training does not change.

    Args:
        value: a nested dict of tensors and plain values.
        buffer: an earlier copy that nobody needs any more. Tensors that fit are copied into it: taking fresh memory
            from the system takes many times as long as copying.
    """
    if isinstance(value, Tensor):
        if isinstance(buffer, Tensor) and (buffer.shape, buffer.dtype) == (value.shape, value.dtype):
            return buffer.copy_(value.detach())
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        earlier = buffer if isinstance(buffer, dict) else {}
        return {key: on_cpu(item, earlier.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        same = isinstance(buffer, list | tuple) and len(buffer) == len(value)
        buffers = buffer if same else [None] * len(value)
        return type(value)(on_cpu(item, part) for item, part in zip(value, buffers, strict=True))
    return value


class _HashedFile:
    """Hashes what is written, and remembers what the disk said: torch turns it into an error of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        try:
            self.file.write(data)
        except OSError as err:
            self.error = err
            raise
        self._hash.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def digest(self) -> bytes:
        return self._hash.digest()


def _digest(file: IO[bytes], size: int) -> bytes:
    hashed = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, 1 << 20))):
        hashed.update(chunk)
        size -= len(chunk)
    return hashed.digest()
