"""List the generations of a workspace that can be gone back to; imports no torch."""

from __future__ import annotations

from collections.abc import Collection

from conpet.config import Settings
from conpet.evaluation.history import COSTS, LOG, row_of
from conpet.evaluation.metrics import whole_accuracy
from conpet.modules.folded_info import consolidation_among
from conpet.store import EventRecord, Snapshot, Store
from conpet.types import Generation


def generations(store: Store) -> list[Generation]:
    """Return the kept generations and the present one, oldest first."""
    with store.snapshot() as present:
        kept = store.pinned()
        events = {one.generation: _event(store, one.generation) for one in (*kept, present)}
        sizes = [{reader.folder: reader.bytes for reader in snapshot.readers()} for snapshot in (*kept, present)]
        rows = []
        for number, snapshot in enumerate(kept):
            others = [size for other, size in enumerate(sizes) if other != number]
            own = {folder: size for folder, size in sizes[number].items() if not any(folder in each for each in others)}
            rows.append(_generation(snapshot, events[snapshot.generation], sum(own.values()), present=False))
            snapshot.close()
        return [*rows, _generation(present, events[present.generation], sum(sizes[-1].values()), present=True)]


def _event(store: Store, generation: int) -> EventRecord:
    """Return the event of a generation; those of a large workspace are long to read."""
    (event,) = store.events(generation - 1, generation)
    return event


def way_back(store: Store, replaced: int) -> int:
    """Return the kept generation with the state of a generation that `restore` replaced.

    If nothing was changed between two restores, that state is kept already, under the number it was restored from.
    """
    restores = {event.id: event.restores for event in store.events()}
    kept = {row.number for row in generations(store) if not row.present}
    while replaced not in kept and (earlier := restores[replaced]) is not None:
        replaced = earlier
    return replaced


def just_consolidated(store: Store, settings: Settings) -> bool:
    """Return whether a consolidation was the last change, but for those of costs and of the log, and did the same.

    One of all layers trains the module that one of the top layers trains, too, if the method has modules.
    """
    last = [event for event in store.events() if event.verb not in (COSTS, LOG)][-1]
    wanted = settings.consolidation
    return last.verb == "consolidate" and (
        (wanted.layers == "top" and settings.method.name == "dynamic")
        or last.detail["settings"] == wanted.model_dump(mode="json")
    )


def holding(store: Store, task: str, labels: Collection[str] = ()) -> tuple[int, ...]:
    """Return the kept generations that hold examples of a task, or a version with one of these labels."""
    found = []
    for kept in store.pinned():
        with kept:
            if any(version.task == task or set(labels) & set(version.labels) for version in kept.versions):
                found.append(kept.generation)
    return tuple(found)


def _generation(snapshot: Snapshot, event: EventRecord, size: int, *, present: bool) -> Generation:
    consolidation = consolidation_among(snapshot.shared)
    return Generation(
        snapshot.generation,
        event.time,
        event.verb,
        present,
        tuple(task.name for task in snapshot.tasks),
        sum(len(task.active.labels) for task in snapshot.tasks),
        consolidation.tasks if consolidation else 0,
        consolidation.layers if consolidation else None,
        whole_accuracy(row_of(event).tallies),
        size,
    )
