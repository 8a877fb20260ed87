"""Turn evaluations and costs into rows of the store's history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conpet.cost import StageCost
from conpet.store import Cost, Metric, Reference
from conpet.types import Evaluation


@dataclass(frozen=True, slots=True)
class Recorded:
    """The rows of an event for the store."""

    metrics: tuple[Metric, ...]
    references: tuple[Reference, ...]
    costs: tuple[Cost, ...]
    confusion: dict[str, dict[str, int]] | None


def recorded(
    evaluation: Evaluation | None, stages: Iterable[StageCost], *, parameters: int = 0, head_parameters: int = 0
) -> Recorded:
    """Turn an evaluation and its costs into rows; trained parameters go into the row of the stage "module"."""
    rows = tuple(
        Cost(
            stage.stage,
            stage.seconds,
            stage.tokens,
            stage.cached_tokens,
            stage.steps,
            parameters=parameters if stage.stage == "module" else 0,
            head_parameters=head_parameters if stage.stage == "module" else 0,
            peak_bytes=stage.peak_bytes,
        )
        for stage in stages
    )
    if evaluation is None:
        return Recorded((), (), rows, None)
    metrics = tuple(
        Metric(task, name, measurement.value, measurement.n)
        for task, metrics in evaluation.tasks.items()
        for name, measurement in metrics.items()
    )
    references = tuple(
        Reference(name, measurement.value, measurement.n) for name, measurement in evaluation.references.items()
    )
    confusion = {task: dict(row) for task, row in evaluation.confusion.items()}
    return Recorded(metrics, references, rows, confusion or None)
