"""What the machine can do, and what a pass through the backbone asks of it: the two sides of a roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.speed.timing import synchronise
from conpet.backbone.backbone import Backbone


def measure_machine(device: str, side: int, seconds: float) -> dict[str, Any]:
    """Measure copying and matrix products: the best of some repetitions of each, for a bound is wanted.

    Returns:
        `bandwidth`: bytes a second, read and written, of a copy larger than the caches. `flops`: number format to
        floating-point operations a second of square products.
    """
    source = torch.zeros(side * side * 32, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found: dict[str, Any] = {"bandwidth": 2 * source.numel() / _best(lambda: target.copy_(source), seconds)}
    found["flops"] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype, device=device)
        operations = 2 * side**3
        quickest = _best(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), seconds)
        found["flops"][str(dtype).removeprefix("torch.")] = operations / quickest
    return found


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
    """Return the floating-point operations and the least bytes moved by passes through the linear maps of some layers.

    Weights are read once a batch; what goes into and out of every map is read and written once. Attention, norms and
    LoRA's own products are left out: at these lengths they are a few percent of the operations.

    Args:
        backbone: Whose layers.
        batches: Tokens of each batch.
        layers: Numbers of the layers.
        backward: Whether the gradients of the inputs are computed as well, through the same maps.
    """
    stack = backbone.cut.model.get_submodule(str(backbone.cut.path))
    assert isinstance(stack, nn.ModuleList)
    maps = [one for number in layers for one in stack[number].modules() if isinstance(one, nn.Linear)]
    size = torch.finfo(backbone.dtype).bits // 8
    weights = sum(one.weight.numel() for one in maps)
    ends = sum(one.in_features + one.out_features for one in maps)
    times = 2 if backward else 1
    return {
        "flops": times * 2.0 * sum(batches) * weights,
        "bytes": times * size * sum(weights + tokens * ends for tokens in batches),
    }


def achieved(work: dict[str, float], seconds: float, dtype: torch.dtype) -> dict[str, Any]:
    """Return a point of the roofline."""
    return {**work, "seconds": seconds, "dtype": str(dtype).removeprefix("torch.")}
