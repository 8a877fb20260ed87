"""Seed torch's generators for a block and restore them afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Seed the generators of the CPU and of the given CUDA devices, and restore them when the block ends.

    `torch.manual_seed` would seed all CUDA devices, including those of the caller.
    """
    with kept(devices):
        torch.default_generator.manual_seed(seed)
        for index in _cuda(devices):
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


@contextmanager
def kept(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Restore the generators of the CPU and of the given CUDA devices when the block ends."""
    with torch.random.fork_rng(devices=_cuda(devices), device_type="cuda"):
        yield


def _cuda(devices: Iterable[torch.device]) -> list[int]:
    """Return the distinct indices of the CUDA devices."""
    cuda = [device for device in devices if device.type == "cuda"]
    return sorted({torch.cuda.current_device() if device.index is None else device.index for device in cuda})
