"""Results made up for the tests of tables and plots, with numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from conpet.bench.results import Protocol, Result, TaskCost

PROTOCOL: dict[str, Any] = {
    "data": "clinc150",
    "examples": {"train": 20, "validation": 5, "test": None},
    "stream": {"by": "given"},
    "digest": "d1" * 16,
    "backbone": "minilm-l6",
    "fingerprint": "f1" * 16,
    "budget": {"training": {"epochs": 5}},
}
MACHINE = {"system": "Linux", "processor": "A fast one", "cores": 2, "memory_gib": 24, "load_before": 0.3}


def made(
    learner: str,
    accuracy: float | Sequence[float] = 0.9,
    *,
    order: int = 0,
    seed: int = 0,
    variant: str = "",
    cpu: float | Sequence[float] = 2.0,
    protocol: dict[str, Any] | None = None,
    metrics: dict[str, float | None] | None = None,
    machine: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """Make a result.

    Args:
        learner: Its name.
        accuracy: Whole accuracy in the end, in hundredths, or that after each task.
        order: The order.
        seed: The seed.
        variant: The variant.
        cpu: CPU seconds of each of three tasks, or of as many as are given.
        protocol: What differs from `PROTOCOL`.
        metrics: More metrics.
        machine: What differs from `MACHINE`.
        **changes: Any other field.
    """
    course = [accuracy] if isinstance(accuracy, float) else list(accuracy)
    seconds = [cpu] * max(3, len(course)) if isinstance(cpu, float) else list(cpu)
    under = Protocol(**{**PROTOCOL, **(protocol or {})})
    rows = [{"all": (round(100 * value), 100)} for value in course]
    matrix = [None] * (len(seconds) - len(rows)) + rows
    costs = [
        TaskCost(
            cpu_seconds=value,
            seconds=2 * value,
            stages={},
            tokens=10,
            cached_tokens=0,
            steps=1,
            bytes_on_disk=1_000_000 * number,
            predict_seconds=0.004,
        )
        for number, value in enumerate(seconds, start=1)
    ]
    fields: dict[str, Any] = {
        "made_by": {"machine": {**MACHINE, **(machine or {})}, "threads": 1},
        "experiment": "main",
        "data": under.data,
        "variant": variant,
        "learner": learner,
        "order": order,
        "seed": seed,
        "asked": "a" * 8,
        "protocol": under,
        "settings": {"method": {"name": learner}, "module": {"rank": 8}, "seed": 1000 * seed + order},
        "tasks": [f"task-{number}" for number in range(len(seconds))],
        "labels": 6,
        "test_examples": 100,
        "metrics": {"whole_accuracy": course[-1], "forgetting": None, **(metrics or {})},
        "references": {"lda": 0.8},
        "matrix": matrix,
        "costs": costs,
        "totals": {"cpu_seconds": sum(seconds), "bytes_stored": 2_500_000},
    }
    return Result(**{**fields, **changes})


def orders(learner: str, accuracies: Iterable[float], **changes: Any) -> list[Result]:
    """Make a result for each order."""
    return [made(learner, accuracy, order=order, **changes) for order, accuracy in enumerate(accuracies)]


def write(folder: Path, results: Iterable[Result]) -> Path:
    """Write results as `conpet bench run` lays them out."""
    for one in results:
        parts = [part for part in (one.data, one.variant) if part]
        one.write(folder.joinpath(*parts) / f"{one.learner.replace('*', '-star')}-o{one.order}-s{one.seed}.json")
    return folder
