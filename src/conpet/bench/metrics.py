"""The metrics of a run: each is one line of `METRICS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conpet.evaluation.metrics import AccuracyMatrix, backward_transfer, forgetting

if TYPE_CHECKING:
    from conpet.types import Evaluation


@dataclass(frozen=True, slots=True)
class Measured:
    """What the metrics of a run are computed from.

    Attributes:
        evaluation: The evaluation after the last task.
        matrix: The counts after every task, or None if the run was not evaluated after every task.
        out_of_scope_auroc: Measures how well scores tell out-of-scope inputs from test inputs, or returns None.
    """

    evaluation: Evaluation
    matrix: AccuracyMatrix | None
    out_of_scope_auroc: Callable[[], float | None]


METRICS: Mapping[str, Callable[[Measured], float | None]] = {
    "whole_accuracy": lambda run: run.evaluation.whole_accuracy,
    "average_accuracy": lambda run: run.evaluation.average_accuracy,
    "forgetting": lambda run: forgetting(run.matrix) if run.matrix else None,
    "backward_transfer": lambda run: backward_transfer(run.matrix) if run.matrix else None,
    "selector_accuracy": lambda run: run.evaluation.selector_accuracy,
    "preselection_accuracy": lambda run: run.evaluation.preselection_accuracy,
    "within_task_accuracy": lambda run: run.evaluation.within_task_accuracy,
    "out_of_scope_auroc": lambda run: run.out_of_scope_auroc(),
}
"""Name of a metric, as experiments give it, to the function that computes it; None where it was not measured."""
