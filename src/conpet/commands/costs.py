"""Set prices, what mistakes cost, or the coverage wanted, and show what decisions rest on; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from conpet.config import RefusalConfig, Settings
from conpet.cost import Resources
from conpet.errors import ConfigError
from conpet.evaluation.history import COSTS, JOB
from conpet.refusal.calibration import Calibration, doubt, needed_examples, no_coverage
from conpet.state.slots import REFUSAL
from conpet.store import Change, CostKind, CostSource, LedgerEntry, Store
from conpet.store.ledger import total
from conpet.types import CheckedKind, Costs

MOST_MINUTES = 1_000_000
"""Most minutes of people's work in one entry: more is probably a typing error."""
_COSTS = ("error", "question", "refusal")


def set_costs(
    store: Store,
    wait_seconds: float | None = None,
    *,
    prices: Mapping[str, Any] | None = None,
    **given: float | None,
) -> Costs:
    """Store costs, a coverage or prices; see `ConPET.set_costs`.

    Raises:
        ConfigError: Nothing is given, costs and a coverage are given together, or a value is unknown or out of range.
    """
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    costs = [name for name in _COSTS if name in changes]
    if not changes and not prices:
        raise ConfigError(
            "give what an error, a question or a refusal costs, a coverage, a share of unknown inputs, or prices"
        )
    if costs and "coverage" in changes:
        raise ConfigError(f"give either costs ({', '.join(costs)}) or a coverage: a coverage takes the place of costs")
    if costs:
        changes["coverage"] = None
    sections = {name: values for name, values in (("refusal", changes), ("prices", dict(prices or {}))) if values}
    with store.write(COSTS, wait_seconds) as writer:
        settings = Settings.parse(store.header().settings).changed(sections)
        if costs and not any(getattr(settings.refusal, name) for name in _COSTS):
            raise ConfigError(
                "error, question and refusal are all 0, so every decision would cost the same: give at least one of "
                "them a cost"
            )
        detail = {name: getattr(settings, name).model_dump() for name in sections}
        writer.commit(Change(COSTS, settings=settings.to_json(), detail=detail))
    return shown_costs(store)


def add_review(store: Store, minutes: float, task: str | None = None, note: str = "") -> float:
    """Enter the working time of people; see `ConPET.add_review`.

    Returns:
        All minutes entered for the task so far.
    """
    if not minutes or not isfinite(minutes):
        raise ConfigError(f"minutes={minutes:g}: give a number of minutes; a negative one corrects an earlier entry")
    if minutes > MOST_MINUTES:
        raise ConfigError(
            f"minutes={minutes:,.0f}: give at most {MOST_MINUTES:,} minutes in one entry (ten people, a year); "
            "enter more in several"
        )
    store.require_writable()
    with store.snapshot() as snapshot:
        if task is not None:
            snapshot.task(task)
        generation = snapshot.generation
    reviews = [one for one in store.ledger.entries() if one.kind is CostKind.REVIEW and one.task == task]
    entered = total(reviews).minutes
    if entered + minutes < 0:
        raise ConfigError(f"minutes={minutes:g}: only {entered:g} minutes were entered, so no more can be taken back")
    entry = LedgerEntry(
        datetime.now(UTC),
        CostKind.REVIEW,
        "review",
        source_of(store),
        task=task,
        generation=generation,
        resources=Resources(minutes=minutes),
        note=note,
    )
    if not store.ledger.add([entry]):
        raise OSError(f"the ledger of {store.path} cannot be written; nothing was entered")
    return entered + minutes


def source_of(store: Store) -> CostSource:
    """Return where an operation runs."""
    return CostSource.JOB if JOB in store.detail else CostSource.LOCAL


def shown_costs(store: Store) -> Costs:
    """Return the costs of a workspace, and what its decisions rest on."""
    with store.snapshot() as snapshot:
        settings = Settings.parse(snapshot.header.settings)
        config = settings.refusal
        stored = snapshot.shared.get(REFUSAL)
        calibration = Calibration() if stored is None else Calibration.from_json(stored.document(REFUSAL))
        labels: dict[str, list[str]] = {}
        for task in snapshot.tasks:
            labels.setdefault(str(task.active.description["kind"]), []).extend(task.active.labels)
    kinds = tuple(_checked(kind, names, calibration, config) for kind, names in sorted(labels.items()))
    return Costs(
        config.error, config.question, config.refusal, config.coverage, config.unknown_share, kinds, settings.prices
    )


def _checked(kind: str, labels: list[str], calibration: Calibration, config: RefusalConfig) -> CheckedKind:
    fitted = calibration.kinds.get(kind)
    note: str | None = None
    if fitted is None:
        note = "nothing is promised: the decisions are not calibrated yet; the next change to a task calibrates them"
        return CheckedKind(kind, 0, 0, 0, note)
    if config.coverage is None:
        return CheckedKind(kind, fitted.known, fitted.unknown, fitted.answered, doubt(fitted))
    thresholds = calibration.thresholds(labels, config.coverage)
    needed = needed_examples(config.coverage)
    if not thresholds.pooled:
        note = no_coverage(config.coverage, fitted.answered, "decide")
    left = tuple(sorted(set(labels) - set(thresholds.promised)))
    return CheckedKind(kind, fitted.known, fitted.unknown, fitted.answered, note, needed, left)
