"""Make docs/benchmarks.md and its plots from the result files of the experiments.

python benchmarks/page.py [--check]     # --check: fail if the page is not what the files give
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from markdown_page import template

from conpet.bench import paired
from conpet.bench.experiment import Experiment
from conpet.bench.grouping import Entry, Group, grouped
from conpet.bench.measures import Measure, measures
from conpet.bench.plots import draw, save
from conpet.bench.results import Result, read_results
from conpet.bench.statistics import Summary, compare
from conpet.bench.tables import build_table, markdown, shown_cell

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGE = DOCS / "benchmarks.md"
TITLES = {"clinc150": "CLINC150", "banking77": "Banking77", "fewrel80": "FewRel", "fewnerd53": "Few-NERD"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    page = Page()
    text = page.rendered()
    if parser.parse_args().check:
        stale = PAGE.read_text(encoding="utf-8") != text or not all(path.exists() for path, _ in page.figures)
        if stale:
            print(f"{PAGE} is stale: run python benchmarks/page.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(text, encoding="utf-8")
    for path, figure in page.figures:
        save(figure, path)
    print(PAGE)
    return 0


@cache
def experiment(name: str) -> Experiment:
    return Experiment.read(HERE / f"{name}.yaml")


@cache
def results(name: str) -> tuple[Result, ...]:
    return tuple(read_results(HERE / "results" / name))


@cache
def groups(name: str, *, join_variants: bool = False) -> dict[str, Group]:
    """Return the results of an experiment by data set, those of the YAML's order."""
    asked = experiment(name)
    found = grouped(
        {name: results(name)},
        order=list(asked.learners),
        variants=list(asked.variants),
        join_variants=join_variants,
    )
    by_data = {group.data: group for group in found}
    return {data: by_data[data] for data in asked.data if data in by_data}


def measure(name: str, experiment_name: str) -> Measure:
    return measures([name], results(experiment_name))[0]


class Page:
    """The page, and the drawings it shows."""

    def __init__(self) -> None:
        self.figures: list[tuple[Path, Any]] = []

    def rendered(self) -> str:
        """Return the page as the result files have it."""
        return template("page.md.j2").render(
            titles=TITLES,
            experiment=experiment,
            data_of=lambda name: list(groups(name)),
            table=table,
            tests=tests,
            figure=self.figure,
            over=over,
            value=value,
            best=best,
            hours=hours,
            commits=commits,
            made_by=lambda name: results(name)[0].made_by,
            missing=missing,
            sizes=sizes,
            orders=lambda name, data: groups(name, join_variants=True)[data].most_orders,
            there=lambda name: bool(results(name)),
            choice=choice,
        )

    def figure(self, name: str, data: str, kind: str, **options: Any) -> str:
        """Return the Markdown of a drawing."""
        path = DOCS / "benchmarks" / f"{name}-{data}-{kind}.svg"
        self.figures.append((path, draw(kind, groups(name)[data], **options)))
        what = {"accuracy": "whole accuracy after each task", "cost": "whole accuracy against cost"}.get(kind, kind)
        return f"![{TITLES[data]}: {what}]({path.relative_to(DOCS).as_posix()})"


def table(name: str, data: str, *columns: str, join_variants: bool = False, only: tuple[str, ...] = ()) -> str:
    """Return the table of a data set, without its title."""
    group = groups(name, join_variants=join_variants)[data]
    if only:
        group = _of(group, only)
    text = markdown([build_table(group, measures(columns, group.results))])
    return text.partition("\n\n")[2].strip()


def _of(group: Group, learners: tuple[str, ...]) -> Group:
    from dataclasses import replace

    return replace(group, entries=tuple(entry for entry in group.entries if entry.learner in learners))


def tests(name: str, data: str, against: str, *learners: str) -> str:
    """Return the paired tests against a learner, without their title."""
    group = groups(name)[data]
    if learners:
        group = _of(group, (against, *learners))
    found = paired.pair(group, measure("whole_accuracy", name), against)
    assert found is not None
    return paired.markdown(found).partition("\n\n")[2].strip()


def entries(name: str, data: str, learner: str, variant: str | None = None) -> Iterator[Entry]:
    for entry in groups(name, join_variants=True)[data].entries:
        if entry.learner == learner and variant in (None, entry.variant):
            yield entry


def summary(name: str, data: str, learner: str, metric: str, variant: str | None = None) -> Summary | None:
    return next(entries(name, data, learner, variant)).summary(measure(metric, name))


def value(name: str, data: str, learner: str, metric: str = "whole_accuracy", variant: str | None = None) -> str:
    """Return a mean with its interval, as tables show it."""
    return shown_cell(summary(name, data, learner, metric, variant), measure(metric, name))


def best(name: str, data: str, *learners: str) -> str:
    """Return which of some learners has the highest mean accuracy."""
    means = {one: found.mean for one in learners if (found := summary(name, data, one, "whole_accuracy"))}
    return max(means, key=means.__getitem__)


def over(name: str, data: str, one: str, other: str, variant: str | None = None) -> str:
    """Return how many points of whole accuracy a learner has more than another, paired by order."""
    accuracy = measure("whole_accuracy", name)
    ours, theirs = (next(entries(name, data, learner, variant)).values(accuracy) for learner in (one, other))
    found = compare(ours, theirs)
    assert found is not None
    text = shown_cell(found.difference, accuracy)
    return text if text.startswith("−") else f"+{text}"


def hours(*names: str) -> str:
    """Return what all runs of experiments took, in hours of two cores that work all the time.

    The first files do not tell the time of the evaluations: they are counted like runs of the same learner and data.
    """
    total = 0.0
    for name in names:
        told: dict[tuple[str, str], list[float]] = {}
        for one in results(name):
            if "run_cpu_seconds" in one.totals:
                told.setdefault((one.data, one.learner), []).append(one.totals["run_cpu_seconds"])
        for one in results(name):
            alike = told.get((one.data, one.learner), [one.totals["cpu_seconds"]])
            total += one.totals.get("run_cpu_seconds", mean(alike))
    return f"{total / 3600 / 2:.1f}"


def commits(*names: str) -> str:
    """Return how many runs of experiments each commit made."""
    found = Counter(one.made_by["commit"][:10] for name in names for one in results(name))
    return ", ".join(f"{commit} ({count})" for commit, count in found.most_common())


def missing(name: str) -> list[str]:
    """Return which runs of an experiment have no result yet: learners with the number of their missing runs."""
    there = {(one.data, one.variant, one.learner, one.order, one.seed) for one in results(name)}
    runs = experiment(name).runs(name)
    left = Counter(
        one.learner for one in runs if (one.data, one.variant, one.learner, one.order, one.seed) not in there
    )
    return [f"{learner} ({count})" for learner, count in left.items()]


def sizes(name: str) -> list[dict[str, Any]]:
    """Return what the streams of an experiment hold."""
    first = {data: next(iter(group.entries[0].results.values())) for data, group in groups(name).items()}
    return [
        {"data": TITLES[data], "tasks": len(one.tasks), "labels": one.labels, "test": one.test_examples}
        for data, one in first.items()
    ]


def choice(name: str) -> str:
    """Return the mean accuracy on validation examples of every variant, over data sets and learners."""
    found = {
        variant: mean(one.metrics["whole_accuracy"] or 0 for one in results(name) if one.variant == variant)
        for variant in experiment(name).variants
    }
    return ", ".join(f"{variant}: {100 * accuracy:.1f}%" for variant, accuracy in found.items())


if __name__ == "__main__":
    sys.exit(main())
