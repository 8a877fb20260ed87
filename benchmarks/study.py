"""What the pages say of the results of an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

from conpet.bench import paired
from conpet.bench.experiment import Experiment
from conpet.bench.groups import Entry, Group, grouped
from conpet.bench.measures import Measure, measures
from conpet.bench.results import Result, read_results
from conpet.bench.statistics import Summary, compare, fit_line
from conpet.bench.tables import build_table, markdown, shown_cell

HERE = Path(__file__).parent
TITLES = {"clinc150": "CLINC150", "banking77": "Banking77", "fewrel80": "FewRel", "fewnerd53": "Few-NERD"}


class Study:
    """An experiment of this folder and its results.

    Args:
        name: Name of the experiment: its file's without ending.
        beside: Experiments whose results on the same data sets and orders are shown with it; theirs come first.
    """

    def __init__(self, name: str, *beside: str) -> None:
        self.name = name
        self.experiment = _experiment(name)
        self._beside = beside

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """All results; those of other experiments go by this one's name, so that what differs is refused."""
        others = (
            one.model_copy(update={"experiment": self.name})
            for other in self._beside
            for one in _results(other)
            if one.data in self.experiment.data and one.order < self.experiment.orders
        )
        return (*others, *_results(self.name))

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The results by data set, in the order of the experiment."""
        return self._grouped(join_variants=False)

    @cached_property
    def joined(self) -> dict[str, Group]:
        """The same, with all variants of a data set in one group."""
        return self._grouped(join_variants=True)

    @property
    def data(self) -> list[str]:
        """The data sets that have results."""
        return list(self.groups)

    def has(self, data: str, *learners: str) -> bool:
        """Tell whether there are results of all of some learners."""
        return all(any(self._entries(data, learner, None)) for learner in learners)

    def orders(self, data: str) -> int:
        """Return the number of orders of the learner that has most."""
        return self.joined[data].most_orders

    def table(self, data: str, *columns: str, join_variants: bool = False, only: tuple[str, ...] = ()) -> str:
        """Return the table of a data set, without its title."""
        group = some_of((self.joined if join_variants else self.groups)[data], only)
        return _body(markdown([build_table(group, measures(columns, group.results))]))

    def tests(self, data: str, against: str, *learners: str) -> str:
        """Return the paired tests against a learner, without their title."""
        group = some_of(self.groups[data], (against, *learners) if learners else ())
        found = paired.pair(group, self._measure("whole_accuracy"), against)
        assert found is not None
        return _body(paired.markdown(found))

    def value(self, data: str, learner: str, metric: str = "whole_accuracy", variant: str | None = None) -> str:
        """Return a mean with its interval, as tables show it."""
        return shown_cell(self.summary(data, learner, metric, variant), self._measure(metric))

    def summary(self, data: str, learner: str, metric: str, variant: str | None = None) -> Summary | None:
        """Return a mean with its interval; None where it was not measured."""
        return next(self._entries(data, learner, variant)).summary(self._measure(metric))

    def best(self, data: str, *learners: str) -> str:
        """Return which of some learners has the highest mean accuracy."""
        means = {one: found.mean for one in learners if (found := self.summary(data, one, "whole_accuracy"))}
        return max(means, key=means.__getitem__)

    def commits(self, *learners: str) -> Counter[str]:
        """Return how many runs, of all learners or of some, each commit made."""
        return Counter(one.made_by["commit"][:10] for one in self.results if not learners or one.learner in learners)

    def over(self, data: str, one: str, other: str, variant: str | None = None) -> str:
        """Return how many points of whole accuracy a learner has more than another, paired by order."""
        accuracy = self._measure("whole_accuracy")
        ours, theirs = (next(self._entries(data, learner, variant)).values(accuracy) for learner in (one, other))
        found = compare(ours, theirs)
        assert found is not None
        text = shown_cell(found.difference, accuracy)
        return text if text.startswith("−") else f"+{text}"

    def growth_table(self, data: str) -> str:
        """Return what a task and a prediction cost early and late in one order of a long stream, and the slopes."""
        group = self.joined[data]
        header = (
            "| learner | CPU time per task (ms): tasks 1 to 10 | 91 to 100 | 991 to 1,000 | increase per task (ms) | "
            "disk growth per task (kB) | CPU time per prediction (ms): after 10 tasks | after 100 | after 1,000 |"
        )
        lines = [header, "|---|" + "--:|" * 8]
        for entry in group.entries:
            costs = dict(enumerate(next(iter(entry.results.values())).costs, start=1))
            told = {number: cost for number, cost in costs.items() if cost is not None}
            seconds = {number: 1e3 * cost.cpu_seconds for number, cost in told.items()}
            kilobytes = {number: cost.bytes_on_disk / 1e3 for number, cost in told.items()}
            asked = {n: 1e3 * cost.predict_seconds for n, cost in told.items() if cost.predict_seconds is not None}
            tens = [[seconds[n] for n in range(last - 9, last + 1) if n in seconds] for last in (10, 100, 1000)]
            cells = [
                entry.learner,
                *(f"{median(ten):,.0f}" if ten else "–" for ten in tens),
                _slope(seconds),
                _slope(kilobytes),
                *(f"{asked[number]:.2f}" if number in asked else "–" for number in (10, 100, 1000)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines).replace("*", "\\*")

    @property
    def hours(self) -> str:
        """What all runs took, in hours of two cores that work all the time.

        The first files do not tell the time of evaluations: they are counted like runs of the same learner and data.
        """
        told: dict[tuple[str, str], list[float]] = {}
        for one in self.results:
            if "run_cpu_seconds" in one.totals:
                told.setdefault((one.data, one.learner), []).append(one.totals["run_cpu_seconds"])
        total = sum(
            one.totals.get("run_cpu_seconds", mean(told.get((one.data, one.learner), [one.totals["cpu_seconds"]])))
            for one in self.results
        )
        return f"{total / 3600 / 2:.1f}"

    @property
    def prefix_seconds(self) -> str:
        """What prefix states took, in seconds a task, in the run that paid most for them."""
        found = (mean(cost.stages.get("prefix", 0.0) for cost in one.costs if cost) for one in self.results)
        return f"{max(found):.1f}"

    @property
    def made_by(self) -> dict[str, Any]:
        """How the first result came about."""
        return self.results[0].made_by

    @property
    def missing(self) -> list[str]:
        """Which runs have no result yet: learners with the number of their missing runs."""
        there = {(one.data, one.variant, one.learner, one.order, one.seed) for one in self.results}
        runs = self.experiment.runs(self.name)
        left = Counter(
            one.learner for one in runs if (one.data, one.variant, one.learner, one.order, one.seed) not in there
        )
        return [f"{learner} ({count})" for learner, count in left.items()]

    @property
    def sizes(self) -> list[dict[str, Any]]:
        """What the streams hold."""
        first = {data: next(iter(group.entries[0].results.values())) for data, group in self.groups.items()}
        return [
            {"data": TITLES[data], "tasks": len(one.tasks), "labels": one.labels, "test": one.test_examples}
            for data, one in first.items()
        ]

    @property
    def choice(self) -> str:
        """The mean accuracy of every variant, over data sets and learners."""
        found = {
            variant: mean(one.metrics["whole_accuracy"] or 0 for one in self.results if one.variant == variant)
            for variant in self.experiment.variants
        }
        return ", ".join(f"{variant}: {100 * accuracy:.1f}%" for variant, accuracy in found.items())

    def _grouped(self, *, join_variants: bool) -> dict[str, Group]:
        learners = [one for name in (*self._beside, self.name) for one in _experiment(name).learners]
        found = grouped(
            {self.name: self.results},
            order=learners,
            variants=list(self.experiment.variants),
            join_variants=join_variants,
        )
        by_data = {group.data: group for group in found}
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
    """Return by how much something grows from task to task, with the 95% interval over tasks."""
    line = fit_line(list(values), list(values.values()))
    if line is None or line.half_width is None:
        return "–"
    return f"{line.slope:+.3g} ± {line.half_width:.2g}".replace("-", "−")


def some_of(group: Group, learners: tuple[str, ...]) -> Group:
    """Return a group with some learners alone; none given: all."""
    kept = tuple(entry for entry in group.entries if not learners or entry.learner in learners)
    return replace(group, entries=kept)


def _body(text: str) -> str:
    return text.partition("\n\n")[2].strip()
