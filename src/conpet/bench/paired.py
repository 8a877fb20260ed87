"""All learners of a group against one of them, order by order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conpet.bench.groups import Group
from conpet.bench.measures import Measure
from conpet.bench.statistics import FEWEST, MOST_FLIPPED, Comparison, compare, flip_floor, holm
from conpet.bench.tables import markdown_table, shown_cell
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.report.text import NONE, plural


@dataclass(frozen=True, slots=True)
class Pair:
    """One learner less the one all are compared with.

    Attributes:
        label: Its name.
        comparison: None where no order and seed is common to both.
        t_holm: p-value of the t test, corrected for all tests of the family.
        flip_holm: That of the sign-flip test.
    """

    label: str
    comparison: Comparison | None
    t_holm: float | None
    flip_holm: float | None


@dataclass(frozen=True, slots=True)
class Paired:
    """All learners of a group against one: one family of tests.

    Attributes:
        title: What it is about.
        against: Name of the one all are compared with.
        chosen: Whether that was chosen as the best of these runs, and not named by the user.
        measure: What is compared.
        pairs: All others.
        uneven: Whether a difference is over fewer orders and seeds than one of its two has.
    """

    title: str
    against: str
    chosen: bool
    measure: Measure
    pairs: tuple[Pair, ...]
    uneven: bool


def pair(group: Group, measure: Measure, against: str | None = None) -> Paired | None:
    """Compare all entries of a group with one; None where fewer than two have the measure.

    Args:
        group: The group.
        measure: What is compared.
        against: A learner (where it has several entries, the best of them) or the label of an entry; None: the best.

    Raises:
        ConfigError: SciPy is not installed, or what is named did not measure it.
        UnknownNameError: There is no such learner or entry.
    """
    means = {group.label(entry): entry.summary(measure) for entry in group.entries}
    measured = {label: found.mean for label, found in means.items() if found}
    candidates = _named(group, against) if against else measured
    if len(measured) < 2:
        return None
    if not (there := [label for label in candidates if label in measured]):
        raise ConfigError(f"{group.title}: {measure.title} of {against} was not measured; compare with another learner")
    best = (min if measure.lower_is_better else max)(there, key=measured.__getitem__)
    values = {group.label(entry): entry.values(measure) for entry in group.entries}
    others = [label for label in measured if label != best]
    found = [compare(values[label], values[best]) for label in others]
    t_holm = holm([one.t_p if one else None for one in found])
    flip_holm = holm([one.flip_p if one else None for one in found])
    pairs = map(Pair, others, found, t_holm, flip_holm)
    uneven = any(values[label].keys() != values[best].keys() for label in others)
    return Paired(group.title, best, against is None, measure, tuple(pairs), uneven)


def _named(group: Group, against: str) -> Sequence[str]:
    labels = [group.label(entry) for entry in group.entries if against in (entry.learner, group.label(entry))]
    if not labels:
        known = [group.label(entry) for entry in group.entries]
        meant = did_you_mean(against, known)
        raise UnknownNameError(f"{group.title}: no learner {against}{meant}; have: {', '.join(known)}")
    return labels


def markdown(paired: Paired) -> str:
    """Write the comparisons in Markdown."""
    heads = ("difference", "orders", "p (t)", "Holm", "p (signs)", "Holm")
    title = f"{paired.title}: {paired.measure.heading} against {paired.against}"
    return markdown_table(
        title, ("learner",), heads, [_cells(one, paired.measure) for one in paired.pairs], _notes(paired)
    )


def _cells(one: Pair, measure: Measure) -> list[str]:
    if one.comparison is None:
        return [one.label, NONE, "0", *[NONE] * 4]
    found = one.comparison
    difference = shown_cell(found.difference, measure)
    signed = difference if difference.startswith("−") or not found.difference.mean else f"+{difference}"
    return [one.label, signed, str(found.difference.n), *map(_p, (found.t_p, one.t_holm, found.flip_p, one.flip_holm))]


def _p(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _notes(paired: Paired) -> list[str]:
    counts = sorted({one.comparison.difference.n for one in paired.pairs if one.comparison})
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
            "Not all have the same orders and seeds: a difference over those that both have need not be that of two "
            "means over all that each has."
        )
    floors = [f"{flip_floor(n):.3g} with {plural(n, 'order')}" for n in counts if FEWEST <= n <= MOST_FLIPPED]
    if floors:
        notes.append(f"A sign-flip p-value cannot be below {', '.join(floors)}, however large the difference.")
    if any(n < FEWEST for n in counts):
        notes.append(f"Fewer than {FEWEST} orders give no useful interval and no test.")
    if any(one.comparison and one.comparison.difference.n >= FEWEST and one.t_holm is None for one in paired.pairs):
        notes.append("Differences that are equal in all orders have no spread to take an interval or a t test from.")
    if paired.chosen:
        notes.append(
            f"{paired.against} is the best of these same runs, which makes differences to it look larger than they are "
            "(--against names another, chosen beforehand)."
        )
    return notes
