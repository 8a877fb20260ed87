"""Accuracy of recorded answers whose right labels are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from conpet.report.text import wilson_interval
from conpet.store.prediction_log import Judged

CONFUSIONS = 20
"""Most pairs of confused labels that are listed."""
_PERIODS = ((2 * 86_400, 3600, "hour"), (60 * 86_400, 86_400, "day"), (float("inf"), 604_800, "week"))
"""Longest time that is divided into periods of some seconds, and the name of such a period."""


@dataclass(frozen=True, slots=True)
class Share:
    """Right answers among some.

    Attributes:
        name: What they have in common: a label, a task, the start of a period.
        right: Number of right answers.
        n: Number of answers.
        low: Lower end of the 95% Wilson interval of the share.
        high: Upper end.
    """

    name: str
    right: int
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of answers by what is known of them.

    Attributes:
        found: Number of labelled inputs that were found in the record.
        missing: Number that were not.
        whole: All of them; None without any.
        periods: By time, oldest first.
        period: "hour", "day" or "week".
        tasks: By the task that answered.
        labels: By the right label, the lowest accuracy first.
        confusions: Right label, label that was given, and how often; the most frequent first.
    """

    found: int
    missing: int
    whole: Share | None
    periods: tuple[Share, ...]
    period: str
    tasks: tuple[Share, ...]
    labels: tuple[Share, ...]
    confusions: tuple[tuple[str, str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        document = asdict(self)
        document["confusions"] = [
            {"right": right, "given": given, "number": number} for right, given, number in self.confusions
        ]
        return document


def accuracy_of(answers: Sequence[Judged], missing: int) -> Accuracy:
    """Return the accuracy of answers; `missing` labelled inputs were not found."""
    times = [one.time for one in answers]
    span = max(times, default=0.0) - min(times, default=0.0)
    seconds, period = next((seconds, name) for longest, seconds, name in _PERIODS if span <= longest)
    periods: dict[str, list[bool]] = defaultdict(list)
    tasks: dict[str, list[bool]] = defaultdict(list)
    labels: dict[str, list[bool]] = defaultdict(list)
    for one in sorted(answers, key=lambda one: one.time):
        start = datetime.fromtimestamp(one.time // seconds * seconds, UTC)
        periods[start.isoformat()].append(one.correct)
        tasks[one.task].append(one.correct)
        labels[one.right].append(one.correct)
    wrong = Counter((one.right, one.label or f"task {one.task}") for one in answers if not one.correct)
    by_label = sorted(map(_share, labels, labels.values()), key=lambda one: (one.right / one.n, -one.n, one.name))
    return Accuracy(
        len(answers),
        missing,
        _share("all", [one.correct for one in answers]) if answers else None,
        tuple(map(_share, periods, periods.values())),
        period,
        tuple(sorted(map(_share, tasks, tasks.values()), key=lambda one: one.name)),
        tuple(by_label),
        tuple((right, given, number) for (right, given), number in wrong.most_common(CONFUSIONS)),
    )


def _share(name: str, right: Sequence[bool]) -> Share:
    return Share(name, sum(right), len(right), *wilson_interval(sum(right), len(right)))
