"""The accuracy of all recorded answers, estimated from those that were reviewed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import sqrt
from typing import Any, NamedTuple

Z = 1.959964
"""Of a 95% interval."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """A part of the answers that was sampled at random.

    Attributes:
        name: "sure", "uncertain" or "declined".
        size: Number of answers.
        reviewed: Number of those that were reviewed.
        right: Number of right ones among these.
    """

    name: str
    size: int
    reviewed: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of right answers, estimated from a stratified sample.

    Attributes:
        value: The share; None if it cannot be estimated.
        low: Lower end of the 95% interval.
        high: Upper end.
        population: Number of answers that it stands for.
        reviewed: Number of answers that it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    population: int
    reviewed: int


@dataclass(frozen=True, slots=True)
class BatchAccuracy:
    """The estimate of one draw.

    Attributes:
        batch: Its number.
        since: When the first of its answers was given.
        until: When the last one was given.
        estimate: The estimate.
        strata: What it rests on.
    """

    batch: int
    since: datetime
    until: datetime
    estimate: Estimate
    strata: tuple[Stratum, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self) | {"since": self.since.isoformat(), "until": self.until.isoformat()}


@dataclass(frozen=True, slots=True)
class ReviewAccuracy:
    """The accuracy of recorded answers, estimated without bias from what was drawn and reviewed.

    Attributes:
        estimate: Of all draws of which every stratum was reviewed.
        decisions: Of the answers by stratum: "sure", "uncertain", "declined".
        batches: Of each draw, oldest first.
        skipped: Number of drawn answers that all reviewers skipped; they are taken to be like the others.
        missing: Draws that are not part of the estimate yet, and why.
    """

    estimate: Estimate
    decisions: Mapping[str, Estimate]
    batches: tuple[BatchAccuracy, ...]
    skipped: int
    missing: Mapping[int, str]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "estimate": asdict(self.estimate),
            "decisions": {name: asdict(one) for name, one in self.decisions.items()},
            "batches": [one.to_json() for one in self.batches],
            "skipped": self.skipped,
            "missing": {str(batch): reason for batch, reason in self.missing.items()},
        }


class DrawnAnswer(NamedTuple):
    """A drawn answer: its draw, kind, place in the random order and stratum.

    `right` is None until it was reviewed; `passed` says that it will not be.
    """

    batch: int
    kind: str
    position: int
    stratum: str
    right: bool | None
    passed: bool


def estimate(strata: Sequence[Stratum]) -> Estimate:
    """Return the stratified estimate of a share, with a Wilson interval for the effective number of answers.

    Each stratum is weighted by its size, so that it does not matter which of them was reviewed more. The variance has
    the correction for finite populations; shares in it are smoothed by half an answer of each kind, so that a stratum
    without errors does not count as certain.

    Args:
        strata: The strata; without answers reviewed in each, nothing is estimated.
    """
    given = [one for one in strata if one.size]
    population, reviewed = sum(one.size for one in given), sum(one.reviewed for one in given)
    if not given or any(not one.reviewed for one in given):
        return Estimate(None, None, None, population, reviewed)
    value = smoothed = variance = 0.0
    for one in given:
        weight, share = one.size / population, (one.right + 0.5) / (one.reviewed + 1)
        value += weight * one.right / one.reviewed
        smoothed += weight * share
        left = 1 - one.reviewed / one.size
        variance += weight**2 * left * share * (1 - share) / one.reviewed
    if not variance:  # every answer was reviewed
        return Estimate(value, value, value, population, reviewed)
    low, high = _wilson(value, smoothed * (1 - smoothed) / variance)
    return Estimate(value, low, high, population, reviewed)


def _wilson(share: float, n: float) -> tuple[float, float]:
    centre, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def counted(answers: Iterable[DrawnAnswer]) -> Iterable[DrawnAnswer]:
    """Yield the reviewed answers before the first one, in the random order of their draw and kind, that still waits.

    So it does not matter in which order people review: what counts is a random sample all the same.
    """
    stopped: set[tuple[int, str]] = set()
    for one in sorted(answers):
        if (one.batch, one.kind) in stopped or one.passed:
            continue
        if one.right is None:
            stopped.add((one.batch, one.kind))
        else:
            yield one


def accuracy_of(
    sizes: Mapping[int, Mapping[str, int]],
    times: Mapping[int, tuple[datetime, datetime]],
    answers: Sequence[DrawnAnswer],
) -> ReviewAccuracy:
    """Return the accuracy of recorded answers.

    Args:
        sizes: Number of answers of each draw by stratum.
        times: When the first and the last answer of each draw was given.
        answers: What was drawn.
    """
    strata = {batch: {name: Stratum(name, size) for name, size in of.items()} for batch, of in sizes.items()}
    for one in counted(answers):
        former = strata[one.batch][one.stratum]
        strata[one.batch][one.stratum] = replace(
            former, reviewed=former.reviewed + 1, right=former.right + bool(one.right)
        )
    missing = {batch: reason for batch, of in strata.items() if (reason := _missing(of.values()))}
    batches = tuple(
        BatchAccuracy(batch, *times[batch], estimate(list(of.values())), tuple(of.values()))
        for batch, of in strata.items()
    )
    usable = {batch: of for batch, of in strata.items() if batch not in missing}
    by_name: dict[str, list[Stratum]] = defaultdict(list)
    for of in usable.values():
        for name, stratum in of.items():
            by_name[name].append(stratum)
    return ReviewAccuracy(
        estimate([one for of in usable.values() for one in of.values()]),
        {name: estimate(listed) for name, listed in by_name.items()},
        batches,
        sum(one.passed for one in answers),
        missing,
    )


def _missing(strata: Iterable[Stratum]) -> str | None:
    """Return why a draw cannot be part of the estimate yet, or None."""
    names = [one.name for one in strata if one.size and not one.reviewed]
    return f"no answer of these was reviewed yet: {', '.join(names)}" if names else None
