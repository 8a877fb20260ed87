"""A trained module as stored, and the updates it makes to linear maps of a suffix."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

ADAPTER_TENSORS = "adapter_model"
ADAPTER_CONFIG = "adapter_config"
"""Stems of the two files of a PEFT adapter; other kinds of modules use the same two."""


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of the names and bytes of tensors, independent of their order."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A module without its head.

    Attributes:
        tensors: Its weights, float32, by their names on disk.
        document: Its configuration, JSON-ready; `peft_type` identifies the kind.
    """

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class MapUpdate:
    """The update a module makes to a frozen linear map W x + b; parts that are None have no effect.

    With z = scale_out * (W (scale_in * x) + b) + shift + up (down x), the updated output is
    z + gelu(z narrow + narrow_bias) widen + widen_bias.

    Attributes:
        down: `[r, in]`.
        up: `[out, r]`, including the LoRA scale.
        scale_in: `[1, in]`.
        scale_out: `[1, out]`.
        shift: `[1, out]`.
        narrow: `[out, m]`.
        narrow_bias: `[1, m]`.
        widen: `[m, out]`.
        widen_bias: `[1, out]`.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    scale_in: Tensor | None = None
    scale_out: Tensor | None = None
    shift: Tensor | None = None
    narrow: Tensor | None = None
    narrow_bias: Tensor | None = None
    widen: Tensor | None = None
    widen_bias: Tensor | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts that are not None, by name."""
        every_part = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in every_part.items() if part is not None}
