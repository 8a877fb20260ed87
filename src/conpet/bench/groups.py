"""Groups of results with the same protocol, which may be compared in one table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from conpet.bench.measures import Measure
from conpet.bench.protocols import Sources, differing, listed, protocol_key, refuse_mixture, shared
from conpet.bench.results import Protocol, Result
from conpet.bench.statistics import FEWEST, Key, Summary, by_order, summarise
from conpet.config.base import flat
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.report.text import plural


@dataclass(frozen=True, slots=True)
class Entry:
    """A learner in one variant from one source: a row of a table, a line of a plot.

    Attributes:
        source: Name of the folder of its results; "" if there is only one.
        learner: Name of the learner.
        variant: Name of the variant.
        results: The results by order and seed.
    """

    source: str
    learner: str
    variant: str
    results: Mapping[Key, Result]

    def values(self, measure: Measure) -> dict[Key, float]:
        """Return the values of a measure, for all runs that have it."""
        values = {key: measure.value(result) for key, result in self.results.items()}
        return {key: value for key, value in values.items() if value is not None}

    def summary(self, measure: Measure) -> Summary | None:
        """Summarise a measure over the orders; None if no run has it."""
        values = self.values(measure)
        return summarise(list(by_order(values).values())) if values else None

    @property
    def orders(self) -> int:
        """Number of orders."""
        return len({order for order, _ in self.results})


@dataclass(frozen=True, slots=True)
class Group:
    """Comparable results: runs on one data set with one protocol.

    Attributes:
        experiment: Name of the experiment.
        data: Name of the data set.
        protocol: The protocol of all runs, apart from `varied`.
        entries: The entries, in the order of the experiment.
        learners: Names of all learners of the experiment, in its order, including those not in this group.
        dropped: Whether runs were left out because their order and seed are not common to all entries.
        apart: Names of the variants that distinguish it from other groups of the same data set, else "".
        varied: Parts of the protocol in which its variants differ.
    """

    experiment: str
    data: str
    protocol: Protocol
    entries: tuple[Entry, ...]
    learners: tuple[str, ...]
    dropped: bool = False
    apart: str = ""
    varied: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Data set, distinguishing variants if needed, and experiment."""
        return f"{', '.join(part for part in (self.data, self.apart) if part)} ({self.experiment})"

    def file_name(self, *, with_experiment: bool) -> str:
        """Return a file name that is unique among the groups of the experiment."""
        parts = (self.experiment if with_experiment else "", self.data, self.apart)
        return "-".join(re.sub(r"[^\w=-]+", "_", part).strip("_") for part in parts if part)

    @property
    def results(self) -> list[Result]:
        """All runs."""
        return [result for entry in self.entries for result in entry.results.values()]

    @property
    def of_sources(self) -> bool:
        """Whether entries come from several sources."""
        return len({entry.source for entry in self.entries}) > 1

    @property
    def of_variants(self) -> bool:
        """Whether entries belong to several variants."""
        return len({entry.variant for entry in self.entries}) > 1

    def label(self, entry: Entry) -> str:
        """Return the name of an entry, as short as the group allows."""
        variant = f" ({entry.variant})" if self.of_variants and entry.variant else ""
        return entry.learner + variant + (f" [{self.short[entry.source]}]" if self.of_sources else "")

    @property
    def short(self) -> dict[str, str]:
        """Short names of the sources: the shortest unique ends of their paths."""
        parts = {entry.source: PurePath(entry.source).parts for entry in self.entries}
        for number in range(1, max(map(len, parts.values())) + 1):
            names = {source: "/".join(own[-number:]) for source, own in parts.items()}
            if len(set(names.values())) == len(names):
                return names
        return {source: source for source in parts}

    def place(self, entry: Entry) -> int:
        """Return a number that is unique within the group.

        In the first variant and source, it is the position of the learner in the experiment.
        """
        several = list(dict.fromkeys((other.variant, other.source) for other in self.entries))
        return self.learners.index(entry.learner) + len(self.learners) * several.index((entry.variant, entry.source))

    @property
    def conditions(self) -> str:
        """The common conditions of all runs, in one line."""
        tasks = plural(max(len(result.tasks) for result in self.results), "task")
        stream = ", ".join(f"{name} {value}" for name, value in self.protocol.stream.items())
        examples = [f"{'all' if most is None else most} {subset}" for subset, most in self.protocol.examples.items()]
        parts = {
            "backbone": self.protocol.backbone,
            "stream": f"{tasks} ({stream})",
            "sizes": self._sizes,
            "examples": f"examples per label: {', '.join(examples)}",
            "budget": "; ".join(_section(name, values) for name, values in self.protocol.budget.items()),
            "modules": f"modules: {modules}" if (modules := ", ".join(self._modules())) else "",
        }
        return "; ".join(text for part, text in parts.items() if text and part not in self.varied)

    @property
    def _sizes(self) -> str:
        """Number of labels and of test examples, if equal for all runs."""
        sizes = {
            (plural(result.labels, "label"), plural(result.test_examples, "test example")) for result in self.results
        }
        return ", ".join(sizes.pop()) if len(sizes) == 1 else ""

    def _modules(self) -> Iterator[str]:
        """Describe the common properties of the trained modules, which are not part of the protocol."""
        runs = [(result, flat(result.settings)) for result in self.results]
        tuned = [settings for result, settings in runs if result.totals.get("trainable_parameters") != 0]
        warmed = [settings for _, settings in runs if settings.get("backbone.warmup") == "first-task"]
        described: dict[str, tuple[list[dict[str, Any]], Callable[[Any], str]]] = {
            "module.kind": (tuned, str),
            "module.rank": ([*tuned, *warmed], lambda rank: f"rank {rank}"),
            "backbone.frozen_layers": (tuned, lambda layers: plural(layers, "frozen layer")),
        }
        for name, (trained, text) in described.items():
            values = {settings.get(name) for settings in trained}
            if len(values) == 1 and (value := values.pop()) is not None:
                yield text(value)

    @property
    def has_intervals(self) -> bool:
        """Whether any mean has enough orders for an interval."""
        return self.most_orders >= FEWEST

    @property
    def caveat(self) -> str:
        """Why some means have no interval; "" if all have one."""
        few = any(entry.orders < FEWEST for entry in self.entries)
        return f"fewer than {FEWEST} orders give no useful interval" if few else ""

    @property
    def most_orders(self) -> int:
        """Largest number of orders of an entry."""
        return max(entry.orders for entry in self.entries)

    @property
    def repeated(self) -> str:
        """Number of orders and seeds, as text: "5 orders", "3 to 5 orders, each the mean of 2 seeds"."""
        counts = sorted({entry.orders for entry in self.entries})
        orders = plural(counts[0], "order") if len(counts) == 1 else f"{counts[0]} to {plural(counts[-1], 'order')}"
        seeds = len({result.seed for result in self.results})
        return orders if seeds == 1 else f"{orders}, each the mean of {plural(seeds, 'seed')}"


def grouped(
    sources: Sources,
    *,
    learners: Sequence[str] = (),
    order: Sequence[str] = (),
    variants: Sequence[str] = (),
    only_variants: Sequence[str] = (),
    data: Sequence[str] = (),
    common_orders: bool = False,
    join_variants: bool = False,
) -> list[Group]:
    """Group results by protocol.

    With several sources, only data sets and variants common to all of them are compared.

    Args:
        sources: Results by the name of their folder.
        learners: Only these learners, in this order; empty for all.
        order: The order of all learners; others come last.
        variants: The order of variants; others come last.
        only_variants: Only these variants, in this order; empty for all.
        data: Only these data sets; empty for all.
        common_orders: Whether to leave out runs whose order and seed are not common to all entries.
        join_variants: Whether to put the variants of an experiment into one group although their protocols differ.

    Raises:
        ConfigError: Results of one experiment or of several sources have different protocols; a run occurs twice; the
            entries of several sources have different orders and seeds; sources have nothing in common.
        UnknownNameError: There is no result for a requested learner, variant or data set.
    """
    everything = [result for results in sources.values() for result in results]
    _check("learner", learners, (result.learner for result in everything))
    _check("variant", only_variants, (result.variant for result in everything))
    _check("data set", data, (result.data for result in everything))
    for source, results in sources.items():
        refuse_mixture(source, results)
    wanted: Sources = {
        source: [
            result
            for result in results
            if (not learners or result.learner in learners)
            and (not only_variants or result.variant in only_variants)
            and (not data or result.data in data)
        ]
        for source, results in sources.items()
    }
    if len(wanted) > 1:
        wanted = shared(wanted)
    known = sorted(dict.fromkeys([*order, *(result.learner for result in everything)]), key=_rank_by(order))
    groups = [
        _ordered(group, learners or order, only_variants or variants)
        for group in _by_protocol(wanted, known, join_variants)
    ]
    if common_orders:
        groups = [_of_common_orders(group) for group in groups]
    elif len(wanted) > 1:
        for group in groups:
            _refuse_other_orders(group)
    return _with_variant_names(groups)


def _section(name: str, values: Any) -> str:
    """Format a section of settings: "training: epochs 5, batch_size 16"."""
    if not isinstance(values, Mapping):
        return f"{name} {values}"
    return f"{name}: {', '.join(f'{key} {value}' for key, value in flat(values).items())}"


def _check(kind: str, requested: Iterable[str], available: Iterable[str]) -> None:
    known = list(dict.fromkeys(available))
    if unknown := [name for name in requested if name not in known]:
        meant, names = did_you_mean(unknown[0], known), ", ".join(filter(None, known)) or "none"
        raise UnknownNameError(f"no results of {kind} {', '.join(unknown)}{meant}; available: {names}")


def _by_protocol(sources: Sources, learners: Sequence[str], join_variants: bool) -> list[Group]:
    several = len(sources) > 1
    by_key: dict[tuple[str, str, str], list[tuple[str, Result]]] = defaultdict(list)
    for source, results in sources.items():
        for result in results:
            protocol = "" if join_variants else protocol_key(result.protocol)
            experiment = "" if several else result.experiment  # each source has only one experiment
            by_key[experiment, result.data, protocol].append((source if several else "", result))
    return [_group(members, learners) for members in by_key.values()]


def _group(members: Sequence[tuple[str, Result]], learners: Sequence[str]) -> Group:
    entries: dict[tuple[str, str, str], dict[Key, Result]] = defaultdict(dict)
    for source, result in members:
        entries[source, result.learner, result.variant][result.order, result.seed] = result
    first = members[0][1]
    return Group(
        experiment=" and ".join(dict.fromkeys(result.experiment for _, result in members)),
        data=first.data,
        protocol=first.protocol,
        entries=tuple(Entry(*names, runs) for names, runs in entries.items()),
        learners=tuple(learners),
        varied=tuple(
            dict.fromkeys(
                field.partition(".")[0] for _, result in members for field in differing(first.protocol, result.protocol)
            )
        ),
    )


def _ordered(group: Group, learners: Sequence[str], variants: Sequence[str]) -> Group:
    learner, variant = _rank_by(learners), _rank_by(variants)
    sources = _rank_by(list(dict.fromkeys(entry.source for entry in group.entries)))

    def place(entry: Entry) -> tuple[Any, ...]:
        return (*learner(entry.learner), *variant(entry.variant), *sources(entry.source))

    return replace(group, entries=tuple(sorted(group.entries, key=place)))


def _rank_by(names: Sequence[str]) -> Callable[[str], tuple[Any, ...]]:
    """Return a sort key: names in the given order, then all others in natural order."""

    def place(name: str) -> tuple[Any, ...]:
        if name in names:
            return (names.index(name), ())
        parts = re.split(r"(\d+)", name)
        return (len(names), tuple(int(part) if number % 2 else part for number, part in enumerate(parts)))

    return place


def _of_common_orders(group: Group) -> Group:
    keys = set.intersection(*(set(entry.results) for entry in group.entries))
    if not keys:
        raise ConfigError(f"{group.title}: no order and seed is common to all entries:{listed(_runs(group))}")
    kept = tuple(
        replace(entry, results={key: result for key, result in entry.results.items() if key in keys})
        for entry in group.entries
    )
    return replace(group, entries=kept, dropped=kept != group.entries)


def _refuse_other_orders(group: Group) -> None:
    if len({frozenset(entry.results) for entry in group.entries}) > 1:
        raise ConfigError(
            f"{group.title}: not all entries have the same orders and seeds; finish the runs, or compare only the "
            f"common ones (--common-orders):{listed(_runs(group))}"
        )


def _runs(group: Group) -> list[str]:
    """Return the orders and seeds of each entry, as text."""
    return [
        f"{group.label(entry)}: {', '.join(f'o{order}-s{seed}' for order, seed in sorted(entry.results))}"
        for entry in group.entries
    ]


def _with_variant_names(groups: Sequence[Group]) -> list[Group]:
    """Name the variants of groups that share their data set with another group."""
    seen = [(group.experiment, group.data) for group in groups]
    return [
        replace(group, apart=", ".join(dict.fromkeys(entry.variant for entry in group.entries)))
        if seen.count((group.experiment, group.data)) > 1
        else group
        for group in groups
    ]
