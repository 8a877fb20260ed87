"""The end of the demo: a consolidation, kept or refused, read back from the workspace when the demo is shown again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from rich.table import Table

from conpet.api import ConPET
from conpet.commands.refusal import Refusal, last_refusal
from conpet.commands.report import report_data
from conpet.errors import AccuracyBoundError, ConfigError, DataError
from conpet.evaluation.history import row_of
from conpet.evaluation.metrics import Tally, whole_accuracy
from conpet.report import text
from conpet.report.data import ReportData
from conpet.store import EventRecord, Store
from conpet.types import LOGISTIC, ConsolidationReport

Consolidate = Callable[[ConPET], ConsolidationReport]
"""Consolidates a workspace and shows the progress."""

_VERB, _LEARN = "consolidate", "learn"


@dataclass(frozen=True, slots=True)
class Consolidated:
    """The events before and after a consolidation that was kept."""

    before: EventRecord
    after: EventRecord

    def table(self) -> Table:
        """Return accuracies before and after it."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("")
        for name in ("before", "after"):
            table.add_column(name, justify="right", no_wrap=True)
        tests = sum(tally.total for tally in row_of(self.after).tallies.values())
        before, after = (Tally(*self.after.detail[name]) for name in ("before", "after"))
        rows: tuple[tuple[str, float | None, float | None], ...] = (
            (f"{before.total:,} validation examples, which decide", before.accuracy, after.accuracy),
            (f"{tests:,} test examples: whole accuracy", _whole(self.before), _whole(self.after)),
            ("    logistic regression on the same features", _logistic(self.before), _logistic(self.after)),
        )
        for name, *accuracies in rows:
            table.add_row(name, *map(text.percent, accuracies))
        return table

    @property
    def cost(self) -> str:
        """What it cost, in a sentence."""
        tokens = text.short_count(sum(cost.tokens for cost in self.after.costs))
        return (
            f"The consolidation took {text.duration(self.seconds)}, {text.count(self.after.detail['steps'])} optimiser "
            f"steps and the equivalent of {tokens} tokens through the whole backbone."
        )

    @property
    def seconds(self) -> float:
        """Wall time of all its stages."""
        return sum(cost.seconds for cost in self.after.costs)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; accuracies are fractions."""
        return {
            "seconds": self.seconds,
            **{
                name: {
                    "validation_accuracy": Tally(*self.after.detail[name]).accuracy,
                    "whole_accuracy": _whole(event),
                    "logistic": _logistic(event),
                }
                for name, event in (("before", self.before), ("after", self.after))
            },
        }


def result_of_learning(store: Store) -> ReportData:
    """Return the report of a workspace as it was before the consolidation at the end, if any."""
    done = consolidated(store)
    return report_data(store, until=done.before.id if done else None)


def consolidated(store: Store) -> Consolidated | None:
    """Return the consolidation that followed the last task learned in a workspace, if any."""
    events = store.events()
    for before, after in zip(reversed(events[:-1]), reversed(events), strict=False):
        if after.verb == _VERB:
            return Consolidated(before, after)
        if after.verb == _LEARN:
            break
    return None


def refusal(store: Store) -> Refusal | None:
    """Return the refusal to consolidate the present generation, if one was recorded."""
    recorded = last_refusal(store)
    return recorded if recorded and recorded.generation == store.generation() else None


def settled(store: Store) -> bool:
    """Whether the consolidation at the end was done or refused."""
    return consolidated(store) is not None or refusal(store) is not None


def try_consolidation(workspace: ConPET, consolidate: Consolidate) -> None:
    """Consolidate a workspace; record it in the workspace's folder if the result is not kept."""
    start = monotonic()
    try:
        consolidate(workspace)
    except (AccuracyBoundError, ConfigError, DataError) as error:
        present = workspace.store.generation()
        Refusal(present, workspace.learned_examples, str(error), monotonic() - start).record(workspace.store)


def _whole(event: EventRecord) -> float | None:
    return whole_accuracy(row_of(event).tallies)


def _logistic(event: EventRecord) -> float | None:
    return next((reference.value for reference in event.references if reference.name == LOGISTIC), None)
