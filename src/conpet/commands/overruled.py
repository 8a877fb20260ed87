"""Find the changes that were made against the gate and still stand; imports no torch."""

from __future__ import annotations

from conpet.evaluation.gate import GATE
from conpet.store import EventSummary, Store


def overruled(store: Store) -> list[EventSummary]:
    """Return the changes that the gate had refused, and that nothing has put right since, newest first.

    A change of a task is put right if the task is rolled back, removed, or learned again past the gate; any change, if
    a generation without it is restored; a change of the whole workspace also by the next one that passes. A removal,
    which cannot be undone, counts until the next change that passes.
    """
    made = [event for event in store.history(search="promoted") if _is_overruled(event)]
    if not made:
        return []
    since = [event for event in store.history() if event.id >= made[-1].id]
    standing: list[EventSummary] = []
    for event in reversed(since):
        standing = [one for one in standing if not _is_put_right(one, event)]
        if _is_overruled(event):
            standing.append(event)
    return standing[::-1]


def _is_overruled(event: EventSummary) -> bool:
    """Return whether an event made a change that the gate had refused."""
    gate = event.detail.get(GATE) or {}
    return "promoted" in gate and gate["verdict"] == "off"


def _is_put_right(change: EventSummary, later: EventSummary) -> bool:
    """Return whether a later change undoes or replaces one."""
    passed = (later.detail.get(GATE) or {}).get("verdict") == "passed"
    if passed and change.verb == "remove":
        return True
    match later.verb:
        case "restore":
            return change.task is None or later.detail["versions"].get(change.task) != change.version
        case "rollback" | "remove":
            return change.task == later.task
        case "learn":
            return passed and change.task == later.task
        case _:
            return passed and change.task is None and later.task is None
