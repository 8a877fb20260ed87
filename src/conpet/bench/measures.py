"""Measures by name: the values of a result that tables and plots can show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from conpet.bench.results import Result, TaskCost
from conpet.errors import UnknownNameError

DEFAULT = ("whole_accuracy", "average_accuracy", "forgetting", "cpu_seconds_per_task", "bytes_stored")
"""Default columns of a table, apart from those no run has."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A value of a result.

    Attributes:
        name: Its name in the result file or in `_DERIVED`.
        title: Its name for readers.
        value: Reads it from a result; None if not measured.
        unit: Unit after scaling; "" for a count.
        scale: Factor for display.
        lower_is_better: Whether lower is better.
        is_cost: Whether it depends on the machine.
    """

    name: str
    title: str
    value: Callable[[Result], float | None]
    unit: str = ""
    scale: float = 1.0
    lower_is_better: bool = False
    is_cost: bool = False

    @property
    def is_fraction(self) -> bool:
        """Whether it is an accuracy or a difference of accuracies, shown in points."""
        return self.unit == "%"

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def measures(names: Sequence[str], results: Sequence[Result]) -> list[Measure]:
    """Return the named measures; without names, those of `DEFAULT` that were measured.

    Raises:
        UnknownNameError: No result has a measure of that name.
    """
    known = {measure.name: measure for measure in _all(results)}
    if unknown := [name for name in names if name not in known]:
        raise UnknownNameError(f"no metric {', '.join(unknown)} in the results; available: {', '.join(known)}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    default = [known[name] for name in DEFAULT if name in known]
    return [measure for measure in default if any(measure.value(result) is not None for result in results)]


def _all(results: Sequence[Result]) -> list[Measure]:
    """Return all measures in the results, metrics first."""
    metrics = [_metric(name) for name in _names(result.metrics for result in results)]
    totals = [_total(name) for name in _names(result.totals for result in results)]
    references = [_reference(name) for name in _names(result.references for result in results)]
    return [*metrics, *_DERIVED, *totals, *references]


def _names(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _metric(name: str) -> Measure:
    lower = name == "forgetting"
    return Measure(name, name.replace("_", " "), lambda result: result.metrics.get(name), "%", 100, lower)


def _reference(name: str) -> Measure:
    return Measure(name, f"{name} as reference", lambda result: result.references.get(name), "%", 100)


_UNITS = {
    "cpu_seconds": ("CPU time", "s", 1.0, True),
    "seconds": ("time", "s", 1.0, True),
    "run_cpu_seconds": ("CPU time of the run", "s", 1.0, True),
    "bytes_stored": ("storage", "MB", 1e-6, False),
    "bytes_on_disk": ("disk space", "MB", 1e-6, False),
}
"""Title, unit, scale and machine dependence of totals that are not counts."""


def _total(name: str) -> Measure:
    title, unit, scale, is_cost = _UNITS.get(name, (name.replace("_", " "), "", 1.0, False))
    return Measure(name, title, lambda result: result.totals.get(name), unit, scale, True, is_cost)


def _per_task(amount: Callable[[TaskCost], float]) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        measured = [amount(cost) for cost in result.costs if cost is not None]
        return mean(measured) if measured else None

    return value


def _prediction(result: Result) -> float | None:
    last = result.costs[-1] if result.costs else None
    return last.predict_seconds if last else None


_DERIVED = (
    Measure("seconds_per_task", "time per task", _per_task(lambda cost: cost.seconds), "s", 1, True, True),
    Measure("cpu_seconds_per_task", "CPU time per task", _per_task(lambda cost: cost.cpu_seconds), "s", 1, True, True),
    Measure("seconds_per_prediction", "CPU time per prediction", _prediction, "ms", 1e3, True, True),
)
"""Means over the tasks with measured costs, and the final cost of a prediction."""
