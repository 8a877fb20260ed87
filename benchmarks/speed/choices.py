"""Measurements for choices on a device: ways to multiply mixed batches, and where to keep activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.speed.bench import BATCH, Bench
from benchmarks.speed.learning import TaskData
from benchmarks.speed.timing import check_close, timed
from conpet.config import Settings
from conpet.modules.grouped_matmul import IMPLEMENTATIONS, time_multiply
from conpet.modules.training import train_module


class Mixture(NamedTuple):
    """The size of a mixed batch: modules, rows, tokens per row, width and rank of a map."""

    modules: int
    rows: int
    tokens: int
    width: int
    rank: int


MIXTURES = (
    Mixture(4, 32, 32, 576, 8),
    Mixture(32, 32, 32, 576, 8),
    Mixture(32, 32, 1, 576, 8),
    Mixture(32, 32, 32, 576, 64),
    Mixture(32, 128, 32, 4096, 16),
)
CLOSE = 2e-2
"""Tolerance between ways in bfloat16, which rounds to 3 digits."""


def product_ways(device: str, mixtures: Sequence[Mixture] = MIXTURES) -> list[dict[str, Any]]:
    """Time all ways to multiply the rows of mixed batches by the maps of their modules, in bfloat16.

    Returns:
        The mixtures, each with the milliseconds of a product in every way; None if not available on the device.

    Raises:
        UnequalError: Two ways give different results.
    """
    where, measured = torch.device(device), []
    for mixture in mixtures:
        generator = torch.Generator().manual_seed(0)
        left = torch.randn(mixture.rows, mixture.tokens, mixture.width, generator=generator)
        stack = torch.randn(mixture.modules, mixture.rank, mixture.width, generator=generator) / mixture.width**0.5
        operands = left.to(where, torch.bfloat16), stack.to(where, torch.bfloat16).mT
        pieces = [(slot, mixture.rows // mixture.modules) for slot in range(mixture.modules)]
        spent, products = {}, []
        with torch.inference_mode():
            for implementation in IMPLEMENTATIONS:
                seconds = time_multiply(implementation(pieces, where), *operands)
                spent[implementation.__name__] = 1e3 * seconds if seconds < float("inf") else None
                if seconds < float("inf"):
                    products.append(implementation(pieces, where).multiply(*operands))
        for other in products[1:]:
            check_close(f"products of {mixture}", other, products[0], CLOSE)
        measured.append({**mixture._asdict(), "ms": spent})
    return measured


def offloading(bench: Bench) -> dict[str, Any]:
    """Learn a task with activations kept on the device and offloaded to the host.

    Returns:
        What is equal, and for both the seconds and the peak bytes on the device (None on a CPU).

    Raises:
        UnequalError: The losses differ.
    """
    backbone, task_data = bench.backbone(bench.sizes.large), TaskData.of(bench)
    losses, sides = [], {}
    for name, offload in (("kept", False), ("offloaded", True)):
        training = {"epochs": bench.sizes.epochs, "batch_size": BATCH, "offload_activations": offload}
        settings = Settings.parse({"training": training}).for_task({})
        on_gpu = backbone.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trained, seconds, _ = timed(train_module, backbone, task_data.job(backbone, settings))
        losses.append(torch.tensor(trained.log.losses))
        sides[name] = {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None}
    equal = check_close("losses with activations offloaded", losses[1], losses[0], bench.tolerance(backbone))
    return {"equal": equal, **sides}
