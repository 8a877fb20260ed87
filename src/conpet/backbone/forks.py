"""A model that was used before a fork: whether the child process may use it, too.

Threads do not survive a fork, and torch waits for its own forever. CUDA does not work in a forked process at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from conpet.errors import BackboneError


@dataclass(slots=True)
class _Use:
    """The first use of a model, in this process or in the one it was forked from."""

    process: int | None = None
    cuda: bool = False


_use = _Use()
"""Global, because torch has one set of threads in each process."""


def use_model(device: torch.device | None = None) -> None:
    """Record that this process uses a model.

    Args:
        device: Device of the model, or None for one that was loaded before.

    Raises:
        BackboneError: The process was forked from one that had used a model with several threads or with CUDA.
    """
    process = os.getpid()
    if _use.process not in (None, process):
        reason = "CUDA" if _use.cuda else f"{torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else None
        if reason:
            raise BackboneError(
                f"process {process} was forked from process {_use.process}, which had used a model with {reason}; that "
                "does not survive a fork, and this process would wait forever. Start processes with `spawn` "
                '(multiprocessing.get_context("spawn")), or fork before the first use of a model (gunicorn: without '
                "--preload, or with a preloaded application that neither learns nor predicts). On a CPU, "
                "OMP_NUM_THREADS=1 also makes a fork safe"
            )
    _use.process = process
    _use.cuda = _use.cuda or (device is not None and device.type == "cuda")
