"""The prefix states of an example as bytes: checksum, header, features, hidden states."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_HEADER = struct.Struct("<4sIIII4x")  # checksum of the rest, rows, width, features, dtype: 24 bytes
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class CachedState:
    """The prefix states and features of one example.

    Attributes:
        hidden: States after layer `frozen_layers` `[T, d]`; float32, bfloat16 or float16, on any device.
        features: Frozen features `[F]`, float32.
    """

    hidden: Tensor
    features: Tensor


def encode(key: bytes, state: CachedState) -> bytes:
    """Return a state as bytes; their checksum also covers the key."""
    hidden, features = state.hidden.detach().cpu().contiguous(), state.features.detach().cpu().contiguous()
    if hidden.dtype not in _DTYPES or features.dtype is not torch.float32 or hidden.dim() != 2 or features.dim() != 1:
        raise TypeError(
            f"a cached state needs hidden [T, d] in one of {_DTYPES} and features [F] in float32; "
            f"got {tuple(hidden.shape)} {hidden.dtype} and {tuple(features.shape)} {features.dtype}"
        )
    header = _HEADER.pack(b"", *hidden.shape, len(features), _DTYPES.index(hidden.dtype))
    body = header[4:] + features.view(torch.uint8).numpy().tobytes() + hidden.view(torch.uint8).numpy().tobytes()
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little") + body


def decode(key: bytes, blob: bytes) -> CachedState | None:
    """Invert `encode`; None if the bytes are not those written under this key."""
    if len(blob) < _HEADER.size or zlib.crc32(memoryview(blob)[4:], zlib.crc32(key)).to_bytes(4, "little") != blob[:4]:
        return None
    _, rows, width, features, code = _HEADER.unpack_from(blob)
    memory = bytearray(blob)  # torch requires writable memory
    middle = _HEADER.size + 4 * features
    hidden = _view(memory, middle, rows * width, _DTYPES[code]).view(rows, width)
    # A copy: a caller that keeps only the features must not keep the hidden states in memory.
    return CachedState(hidden, _view(memory, _HEADER.size, features, torch.float32).clone())


def _view(memory: bytearray, offset: int, count: int, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset) if count else torch.empty(0, dtype=dtype)
