"""The roofline: limits of the machine, and the work of a pass through the backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.speed.timing import synchronise
from conpet.backbone.backbone import Backbone


def measure_machine(device: str, side: int, seconds: float) -> dict[str, Any]:
    """Measure the limits of copying and matrix products, each as the best of several repetitions.

    Returns:
        `bandwidth`: bytes per second, read and written, of a copy larger than the caches. `flops`: floating-point
        operations per second of square products, by number format.
    """
    source = torch.zeros(side * side * 32, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    limits: dict[str, Any] = {"bandwidth": 2 * source.numel() / _best(lambda: target.copy_(source), seconds)}
    limits["flops"] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype, device=device)
        operations = 2 * side**3
        quickest = _best(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), seconds)
        limits["flops"][str(dtype).removeprefix("torch.")] = operations / quickest
    return limits


def _best(run: Callable[[], Any], seconds: float) -> float:
    run()
    quickest, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        synchronise()
        started = time.perf_counter()
        run()
        synchronise()
        quickest = min(quickest, time.perf_counter() - started)
    return quickest


def pass_work(backbone: Backbone, batches: Sequence[int], layers: range, *, backward: bool = False) -> dict[str, float]:
    """Return the floating-point operations and the fewest bytes moved by passes through the linear maps of layers.

    Weights are read once per batch; inputs and outputs of every map are read and written once. Attention, norms and
    the products of LoRA are ignored: at these lengths they are a few percent of the operations.

    Args:
        backbone: The model.
        batches: Tokens of each batch.
        layers: Numbers of the layers.
        backward: Whether to include the gradients of the inputs, through the same maps.
    """
    stack = backbone.cut.model.get_submodule(str(backbone.cut.path))
    assert isinstance(stack, nn.ModuleList)
    maps = [module for number in layers for module in stack[number].modules() if isinstance(module, nn.Linear)]
    size = torch.finfo(backbone.dtype).bits // 8
    weights = sum(linear.weight.numel() for linear in maps)
    ends = sum(linear.in_features + linear.out_features for linear in maps)
    times = 2 if backward else 1
    return {
        "flops": times * 2.0 * sum(batches) * weights,
        "bytes": times * size * sum(weights + tokens * ends for tokens in batches),
    }


def achieved(work: dict[str, float], seconds: float, dtype: torch.dtype) -> dict[str, Any]:
    """Return a point of the roofline."""
    return {**work, "seconds": seconds, "dtype": str(dtype).removeprefix("torch.")}
