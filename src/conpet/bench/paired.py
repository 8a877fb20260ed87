"""Paired comparisons of all learners of a group with one learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conpet.bench.groups import Group
from conpet.bench.measures import Measure
from conpet.bench.statistics import FEWEST, MOST_FLIPPED, Comparison, compare, flip_floor
from conpet.bench.tables import markdown_table, shown_cell
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.evaluation.significance import holm
from conpet.report.text import NONE, p_value, plural


@dataclass(frozen=True, slots=True)
class Pair:
    """The comparison of a learner with the reference learner.

    Attributes:
        label: Name of the learner.
        comparison: The comparison; None if no order and seed is common to both.
        t_holm: p-value of the t test, corrected for all tests of the family.
        flip_holm: p-value of the sign-flip test, corrected in the same way.
    """

    label: str
    comparison: Comparison | None
    t_holm: float | None
    flip_holm: float | None


@dataclass(frozen=True, slots=True)
class Paired:
    """Comparisons of all learners of a group with a reference: one family of tests.

    Attributes:
        title: Title of the group.
        against: Name of the reference learner.
        chosen: Whether the reference is the best of these runs, rather than named by the user.
        measure: The measure compared.
        pairs: The comparisons of all other learners.
        uneven: Whether some learners have orders and seeds that their comparison leaves out.
    """

    title: str
    against: str
    chosen: bool
    measure: Measure
    pairs: tuple[Pair, ...]
    uneven: bool


def pair(group: Group, measure: Measure, against: str | None = None) -> Paired | None:
    """Compare all entries of a group with one entry; None if fewer than two have the measure.

    Args:
        group: The group.
        measure: The measure compared.
        against: A learner (the best of its entries) or the label of an entry; None for the best of all.

    Raises:
        ConfigError: SciPy is not installed, or `against` has no value of the measure.
        UnknownNameError: There is no such learner or entry.
    """
    means = {group.label(entry): entry.summary(measure) for entry in group.entries}
    measured = {label: summary.mean for label, summary in means.items() if summary}
    candidates = _named(group, against) if against else measured
    if len(measured) < 2:
        return None
    if not (available := [label for label in candidates if label in measured]):
        raise ConfigError(f"{group.title}: {against} has no {measure.title}; compare with another learner")
    best = (min if measure.lower_is_better else max)(available, key=measured.__getitem__)
    values = {group.label(entry): entry.values(measure) for entry in group.entries}
    others = [label for label in measured if label != best]
    comparisons = [compare(values[label], values[best]) for label in others]
    t_holm = holm([comparison.t_p if comparison else None for comparison in comparisons])
    flip_holm = holm([comparison.flip_p if comparison else None for comparison in comparisons])
    pairs = map(Pair, others, comparisons, t_holm, flip_holm)
    uneven = any(values[label].keys() != values[best].keys() for label in others)
    return Paired(group.title, best, against is None, measure, tuple(pairs), uneven)


def _named(group: Group, against: str) -> Sequence[str]:
    labels = [group.label(entry) for entry in group.entries if against in (entry.learner, group.label(entry))]
    if not labels:
        known = [group.label(entry) for entry in group.entries]
        meant = did_you_mean(against, known)
        raise UnknownNameError(f"{group.title}: no learner {against}{meant}; available: {', '.join(known)}")
    return labels


def markdown(paired: Paired) -> str:
    """Format the comparisons as Markdown."""
    heads = ("difference", "orders", "p (t)", "Holm", "p (signs)", "Holm")
    title = f"{paired.title}: {paired.measure.heading} against {paired.against}"
    return markdown_table(
        title, ("learner",), heads, [_cells(pair, paired.measure) for pair in paired.pairs], _notes(paired)
    )


def _cells(pair: Pair, measure: Measure) -> list[str]:
    if pair.comparison is None:
        return [pair.label, NONE, "0", *[NONE] * 4]
    comparison = pair.comparison
    difference = shown_cell(comparison.difference, measure)
    signed = difference if difference.startswith("−") or not comparison.difference.mean else f"+{difference}"
    p_values = (comparison.t_p, pair.t_holm, comparison.flip_p, pair.flip_holm)
    return [pair.label, signed, str(comparison.difference.n), *map(_p, p_values)]


def _p(value: float | None) -> str:
    return NONE if value is None else p_value(value)


def _notes(paired: Paired) -> list[str]:
    counts = sorted({pair.comparison.difference.n for pair in paired.pairs if pair.comparison})
    tested = any(n >= FEWEST for n in counts)
    interval = " ± half-width of the 95% t-interval" if tested else ""
    notes = [f"Mean difference to {paired.against}{interval}, over the orders and seeds common to both."]
    if tested:
        notes.append(
            "Two-sided p-values of the paired t test and of the exact sign-flip test, each followed by its value with "
            "Holm's correction for all tests of its kind in this table."
        )
    if paired.uneven:
        notes.append(
            "Not all learners have the same orders and seeds: a difference over the common ones may differ from the "
            "difference of two means over all."
        )
    floors = [f"{flip_floor(n):.3g} with {plural(n, 'order')}" for n in counts if FEWEST <= n <= MOST_FLIPPED]
    if floors:
        notes.append(f"A sign-flip p-value cannot be below {', '.join(floors)}, however large the difference.")
    if any(n < FEWEST for n in counts):
        notes.append(f"Fewer than {FEWEST} orders give no useful interval and no test.")
    if any(pair.comparison and pair.comparison.difference.n >= FEWEST and pair.t_holm is None for pair in paired.pairs):
        notes.append("Differences that are equal in all orders have no spread, so they have no interval and no t test.")
    if paired.chosen:
        notes.append(
            f"{paired.against} is the best of these same runs, which exaggerates differences to it "
            "(use --against with a learner chosen beforehand)."
        )
    return notes
