"""Enter operations into the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from conpet.backbone.backbone import Backbone
from conpet.commands.base import Transaction
from conpet.commands.costs import source_of
from conpet.cost import Meter, Resources, Spent, StageCost, difference, stage_cost, total_cost
from conpet.evaluation.history import JOB
from conpet.replay.memory import Subset
from conpet.store import CostKind, EventRecord, LedgerEntry, Store

_LEARNING = ("learn", "extend", "split", "rollback")
_KINDS = {
    **dict.fromkeys(_LEARNING, CostKind.LEARN),
    "consolidate": CostKind.CONSOLIDATE,
    "merge": CostKind.CONSOLIDATE,
    "tune": CostKind.TUNE,
}
_STAGES = {"gate": CostKind.GATE, "evaluation": CostKind.EVALUATE}
"""Stages of a change that have a kind of their own."""
_LEAST_SECONDS = 0.5
"""An operation that changed and computed nothing is entered from this processor time on."""


def book_change(tx: Transaction, verb: str, spent: Spent, outcome: str, *, needed_since: date | None = None) -> None:
    """Enter a change, or an attempt at one: what it learned, and its comparison and evaluation on lines of their own.

    Args:
        tx: The transaction, at its end.
        verb: The operation.
        spent: Its time so far.
        outcome: See `LedgerEntry`.
        needed_since: The day from which its labels were needed.
    """
    own = replace(tx.attempt.own(), seconds=spent.seconds, cpu_seconds=spent.cpu_seconds)
    killed = tx.attempt.killed()
    if not tx.made and not own.equivalents and own.cpu_seconds < _LEAST_SECONDS:
        return
    base = LedgerEntry(
        datetime.now(UTC),
        _KINDS.get(verb, CostKind.CHANGE),
        verb,
        source_of(tx.store),
        generation=tx.made[-1].id if tx.made else tx.snapshot.generation,
        outcome=outcome,
        suffix_share=tx.method.backbone.suffix_share,
        bytes_stored=tx.made[-1].bytes_stored if tx.made else None,
        job=tx.store.detail.get(JOB),
    )
    gpu = tx.method.backbone.on_gpu
    sides = [stage for stage in tx.costs.stages if stage.stage in _STAGES]
    main = difference("main", [own], sides)
    tasks = [event.task for event in tx.made if event.task is not None]
    single = tasks[0] if len(tasks) == 1 else None
    compared = {CostKind.GATE: tx.gate_report.compared if tx.gate_report else 0, CostKind.EVALUATE: tx.tested}
    sizes = {reader.folder.name: reader.bytes for reader in tx.snapshot.readers()} if tx.made else {}
    entries = [*_divided(tx, base, main, gpu, needed_since, sizes)]
    for kind in CostKind:
        stages = [stage for stage in sides if _STAGES[stage.stage] is kind]
        if stages:
            resources = Resources.of(total_cost(kind, stages), gpu=gpu)
            entries.append(replace(base, kind=kind, task=single, examples=compared[kind], resources=resources))
    if killed.equivalents or killed.seconds:
        entries.append(replace(base, outcome="interrupted", resources=Resources.of(killed, gpu=gpu)))
    tx.store.ledger.add(entries)


def _divided(
    tx: Transaction,
    base: LedgerEntry,
    cost: StageCost,
    gpu: bool,
    needed_since: date | None,
    sizes: Mapping[str, int],
) -> Iterable[LedgerEntry]:
    """Yield an entry for each task that was changed, with its share of the cost by training examples."""
    events = [event for event in tx.made if event.task is not None]
    if not events:
        yield replace(
            base,
            needed_since=needed_since,
            resources=Resources.of(cost, gpu=gpu, bytes_added=_bytes_added(tx.made, sizes)),
        )
        return
    records = {task.name: task.active for task in tx.snapshot.tasks}
    examples = [
        int(records[str(event.task)].description["counts"][Subset.TRAIN]) if event.task in records else 0
        for event in events
    ]
    whole = sum(examples)
    for event, count in zip(events, examples, strict=True):
        part = cost.share(count / whole if whole else 1 / len(events))
        labels = records[str(event.task)].labels if event.task in records else ()
        yield replace(
            base,
            task=event.task,
            generation=event.id,
            examples=count,
            resources=Resources.of(part, gpu=gpu, bytes_added=_bytes_added([event], sizes)),
            new_labels=len(set(labels) - tx.before),
            needed_since=needed_since,
        )


def book_evaluation(
    store: Store, backbone: Backbone, generation: int, examples: int, spent: Spent, meter: Meter
) -> None:
    """Enter an evaluation that changed nothing."""
    _book(store, CostKind.EVALUATE, "evaluate", backbone, spent, meter, generation=generation, examples=examples)


def book_search(store: Store, backbone: Backbone, task: str, generation: int, spent: Spent, meter: Meter) -> None:
    """Enter a search for a design that changed nothing."""
    _book(store, CostKind.TUNE, "tune", backbone, spent, meter, task=task, generation=generation)


def _book(
    store: Store, kind: CostKind, verb: str, backbone: Backbone, spent: Spent, meter: Meter, **fields: Any
) -> None:
    cost = stage_cost(verb, meter, spent.seconds, cpu_seconds=spent.cpu_seconds)
    used, share = Resources.of(cost, gpu=backbone.on_gpu), backbone.suffix_share
    now = datetime.now(UTC)
    store.ledger.add([LedgerEntry(now, kind, verb, source_of(store), resources=used, suffix_share=share, **fields)])


def _bytes_added(events: Sequence[EventRecord], sizes: Mapping[str, int]) -> int:
    """Return the size of the objects that events wrote, given the sizes of all objects by folder."""
    return sum(sizes.get(folder, 0) for event in events for folder in event.written.get("objects", {}))
