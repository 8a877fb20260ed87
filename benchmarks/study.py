"""The results of an experiment, formatted for the pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

from stated import NAMES

from conpet.bench import paired
from conpet.bench.experiment import Experiment
from conpet.bench.groups import Entry, Group, grouped
from conpet.bench.measures import Measure, measures
from conpet.bench.results import Result, read_results
from conpet.bench.statistics import Summary, compare, fit_line
from conpet.bench.tables import build_table, markdown, shown_cell

HERE = Path(__file__).parent


class Study:
    """An experiment of this folder and its results.

    Args:
        name: Name of the experiment: its file name without suffix.
        others: Experiments whose results on the same data sets and orders are shown too, before its own.
    """

    def __init__(self, name: str, *others: str) -> None:
        self.name = name
        self.experiment = _experiment(name)
        self._others = others

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """All results. Those of other experiments get this name, so that differing protocols are refused."""
        borrowed = (
            result.model_copy(update={"experiment": self.name})
            for other in self._others
            for result in _results(other)
            if result.data in self.experiment.data and result.order < self.experiment.orders
        )
        return (*borrowed, *_results(self.name))

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The results by data set, in the order of the experiment."""
        return self._grouped(join_variants=False)

    @cached_property
    def joined(self) -> dict[str, Group]:
        """The results by data set, with all variants in one group."""
        return self._grouped(join_variants=True)

    @property
    def data(self) -> list[str]:
        """The data sets that have results."""
        return list(self.groups)

    def has(self, data: str, *learners: str, variant: str | None = None) -> bool:
        """Return whether all of these learners have results."""
        return all(any(self._entries(data, learner, variant)) for learner in learners)

    def orders(self, data: str) -> int:
        """Return the largest number of orders of a learner."""
        return self.joined[data].most_orders

    def table(self, data: str, *columns: str, join_variants: bool = False, only: tuple[str, ...] = ()) -> str:
        """Return the table of a data set, without its title."""
        group = some_of((self.joined if join_variants else self.groups)[data], only)
        return _body(markdown([build_table(group, measures(columns, group.results))]))

    def tests(self, data: str, against: str, *learners: str) -> str:
        """Return the paired tests against a learner, without their title."""
        group = some_of(self.groups[data], (against, *learners) if learners else ())
        comparisons = paired.pair(group, self._measure("whole_accuracy"), against)
        assert comparisons is not None
        return _body(paired.markdown(comparisons))

    def value(self, data: str, learner: str, metric: str = "whole_accuracy", variant: str | None = None) -> str:
        """Format a mean with its interval, as in tables."""
        return shown_cell(self.summary(data, learner, metric, variant), self._measure(metric))

    def summary(self, data: str, learner: str, metric: str, variant: str | None = None) -> Summary | None:
        """Return a mean with its interval; None if not measured."""
        return next(self._entries(data, learner, variant)).summary(self._measure(metric))

    def values(self, data: str, learner: str) -> Mapping[int, float]:
        """Return the whole accuracies, 0 to 1, by task order."""
        found = (result for result in self.results if result.data == data and result.learner == learner)
        return {result.order: result.metrics["whole_accuracy"] for result in found}

    def best(self, data: str, *learners: str) -> str:
        """Return the learner with the highest mean accuracy."""
        means = {
            learner: summary.mean for learner in learners if (summary := self.summary(data, learner, "whole_accuracy"))
        }
        return max(means, key=means.__getitem__)

    def commits(self, *learners: str) -> Counter[str]:
        """Return the number of runs by commit, for all or some learners."""
        return Counter(
            result.made_by["commit"][:10] for result in self.results if not learners or result.learner in learners
        )

    def over(self, data: str, learner: str, other: str, variant: str | None = None) -> str:
        """Format the difference in whole accuracy between two learners, paired by order."""
        accuracy = self._measure("whole_accuracy")
        ours, theirs = (next(self._entries(data, name, variant)).values(accuracy) for name in (learner, other))
        comparison = compare(ours, theirs)
        assert comparison is not None
        text = shown_cell(comparison.difference, accuracy)
        return text if text.startswith("−") else f"+{text}"

    def growth_table(self, data: str) -> str:
        """Return the table of the cost of a task and a prediction over one order of a long stream, with slopes."""
        group = self.joined[data]
        header = (
            "| learner | CPU time per task (ms): tasks 1 to 10 | 91 to 100 | 991 to 1,000 | increase per task (ms) | "
            "disk growth per task (kB) | CPU time per prediction (ms): after 10 tasks | after 100 | after 1,000 |"
        )
        lines = [header, "|---|" + "--:|" * 8]
        for entry in group.entries:
            costs = dict(enumerate(next(iter(entry.results.values())).costs, start=1))
            measured = {number: cost for number, cost in costs.items() if cost is not None}
            seconds = {number: 1e3 * cost.cpu_seconds for number, cost in measured.items()}
            kilobytes = {number: cost.bytes_on_disk / 1e3 for number, cost in measured.items()}
            predictions = {
                n: 1e3 * cost.predict_seconds for n, cost in measured.items() if cost.predict_seconds is not None
            }
            tens = [[seconds[n] for n in range(last - 9, last + 1) if n in seconds] for last in (10, 100, 1000)]
            cells = [
                entry.learner,
                *(f"{median(ten):,.0f}" if ten else "–" for ten in tens),
                _slope(seconds),
                _slope(kilobytes),
                *(f"{predictions[number]:.2f}" if number in predictions else "–" for number in (10, 100, 1000)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines).replace("*", "\\*")

    @property
    def hours(self) -> str:
        """Total time of all runs, in hours on two busy cores.

        The first files lack the time of evaluations; they are counted like other runs of the same learner and data.
        """
        known: dict[tuple[str, str], list[float]] = {}
        for run in self.results:
            if "run_cpu_seconds" in run.totals:
                known.setdefault((run.data, run.learner), []).append(run.totals["run_cpu_seconds"])
        total = sum(
            run.totals.get("run_cpu_seconds", mean(known.get((run.data, run.learner), [run.totals["cpu_seconds"]])))
            for run in self.results
        )
        return f"{total / 3600 / 2:.1f}"

    @property
    def prefix_seconds(self) -> str:
        """Seconds per task for prefix states, in the run with the largest value."""
        seconds = (mean(cost.stages.get("prefix", 0.0) for cost in run.costs if cost) for run in self.results)
        return f"{max(seconds):.1f}"

    @property
    def made_by(self) -> dict[str, Any]:
        """The provenance of the first result."""
        return self.results[0].made_by

    @property
    def missing(self) -> list[str]:
        """Learners with missing results, with the number of missing runs."""
        present = {(run.data, run.variant, run.learner, run.order, run.seed) for run in self.results}
        runs = self.experiment.runs(self.name)
        missing = Counter(
            run.learner for run in runs if (run.data, run.variant, run.learner, run.order, run.seed) not in present
        )
        return [f"{learner} ({count})" for learner, count in missing.items()]

    @property
    def sizes(self) -> list[dict[str, Any]]:
        """The sizes of the streams."""
        first = {data: next(iter(group.entries[0].results.values())) for data, group in self.groups.items()}
        return [
            {"data": NAMES[data], "tasks": len(run.tasks), "labels": run.labels, "test": run.test_examples}
            for data, run in first.items()
        ]

    @property
    def choice(self) -> str:
        """The mean accuracy of every variant, over data sets and learners."""
        means = {
            variant: mean(run.metrics["whole_accuracy"] or 0 for run in self.results if run.variant == variant)
            for variant in self.experiment.variants
        }
        return ", ".join(f"{variant}: {100 * accuracy:.1f}%" for variant, accuracy in means.items())

    def _grouped(self, *, join_variants: bool) -> dict[str, Group]:
        learners = [learner for name in (*self._others, self.name) for learner in _experiment(name).learners]
        groups = grouped(
            {self.name: self.results},
            order=learners,
            variants=list(self.experiment.variants),
            join_variants=join_variants,
        )
        by_data = {group.data: group for group in groups}
        return {data: by_data[data] for data in self.experiment.data if data in by_data}

    def _measure(self, name: str) -> Measure:
        return measures([name], self.results)[0]

    def _entries(self, data: str, learner: str, variant: str | None) -> Iterator[Entry]:
        for entry in self.joined[data].entries:
            if entry.learner == learner and variant in (None, entry.variant):
                yield entry


@cache
def _experiment(name: str) -> Experiment:
    return Experiment.read(HERE / f"{name}.yaml")


@cache
def _results(name: str) -> tuple[Result, ...]:
    folder = HERE / "results" / name
    return tuple(read_results(folder)) if folder.exists() else ()


def _slope(values: Mapping[int, float]) -> str:
    """Format the growth per task, with the 95% interval over tasks."""
    line = fit_line(list(values), list(values.values()))
    if line is None or line.half_width is None:
        return "–"
    return f"{line.slope:+.3g} ± {line.half_width:.2g}".replace("-", "−")


def some_of(group: Group, learners: tuple[str, ...]) -> Group:
    """Return a group with only these learners; without names, all of them."""
    kept = tuple(entry for entry in group.entries if not learners or entry.learner in learners)
    return replace(group, entries=kept)


def _body(text: str) -> str:
    return text.partition("\n\n")[2].strip()
