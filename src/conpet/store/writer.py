"""Commits: write contents to temporary folders, rename them, make them visible in one transaction, then clean up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import and_, delete, func, select

from conpet.artifact import Manifest, sync, write_artifact
from conpet.errors import ConpetError
from conpet.evaluation.gate import CandidateRecord
from conpet.store.candidates import drop_candidate, sweep_candidates, write_candidate
from conpet.store.change import Change
from conpet.store.database import Database
from conpet.store.layout import Layout
from conpet.store.leases import offer_lease, oldest_lease
from conpet.store.pins import read_pin, unpin
from conpet.store.plan import Plan, make_plans
from conpet.store.prediction_log import PredictionLog
from conpet.store.reading import read_events, read_generation
from conpet.store.records import EventRecord
from conpet.store.reserve import keep_reserve
from conpet.store.schema import ObjectRow, PinObjectRow, SharedRow
from conpet.store.transaction import apply_change

SCRATCH_SECONDS = 30 * 24 * 3600.0
"""Checkpoints unused for this long are deleted."""


class Writer:
    """Changes a workspace. Only created by `Store.write`, which holds the lock.

    Args:
        layout: The paths of the workspace.
        database: Its database.
        detail: Added to the detail of every event.
        actor: Who makes the changes.
    """

    def __init__(self, layout: Layout, database: Database, detail: Mapping[str, Any], actor: str) -> None:
        self._layout = layout
        self._database = database
        self._detail = detail
        self._actor = actor

    def commit(self, change: Change) -> EventRecord:
        """Commit a change completely, or nothing of it on an error.

        Raises:
            UnknownNameError: It refers to a task or version that does not exist.
            ConfigError: It contradicts itself or would replace a module.
            OSError: The disk is full or cannot be written.
        """
        return self.commit_all([change])[0]

    def commit_all(self, changes: Sequence[Change]) -> list[EventRecord]:
        """Commit independent changes together, or none of them on an error; each gets its own event.

        Raises:
            UnknownNameError: As in `commit`.
            ConfigError: As in `commit`, or two changes concern the same task or slot.
            OSError: As in `commit`.
        """
        changes = [replace(change, detail={**change.detail, **self._detail}) for change in changes]
        with self._database.read() as connection:
            plans = make_plans(connection, changes)
        predictions = None
        with suppress(OSError, ConpetError):  # a damaged record stops no change; `audit verify` names it
            predictions = PredictionLog(self._layout.root).head()
        try:
            manifests = [self._write_objects(plan) for plan in plans]
            with self._database.write() as connection:
                arguments = zip(changes, plans, manifests, strict=True)
                first, *_ = [apply_change(connection, *each, self._actor, predictions) for each in arguments]
                events = read_events(connection, after=first - 1)
                offer_lease(self._layout, events[-1].id)
        except BaseException:
            # The database lists all valid objects, even if the error came after the transaction.
            with suppress(OSError):
                self._sweep_objects()
            raise
        with suppress(OSError):  # the change is committed; the next writer cleans up the rest
            sweep_candidates(self._layout, events[-1].id)
            self.collect()
        for digest in {digest for change in changes for digest in change.clear_scratch}:
            shutil.rmtree(self._layout.scratch_of(digest), ignore_errors=True)
        return events

    def unpin(self, generation: int) -> None:
        """Release a pinned generation and delete the objects that only it needed; the present one does not change.

        Raises:
            UnknownNameError: The generation is not pinned.
        """
        with self._database.write() as connection:
            read_pin(connection, generation)
            unpin(connection, [generation])
        self.collect()

    def keep_candidate(self, changes: Sequence[Change], report: Mapping[str, Any]) -> CandidateRecord:
        """Write changes that are not made now, in place of an earlier candidate of the same change.

        Args:
            changes: The changes, for the present generation.
            report: Why they are not made (JSON-ready).

        Raises:
            OSError: The disk is full or cannot be written.
        """
        return write_candidate(self._layout, self._generation(), changes, report)

    def drop_candidate(self, number: int) -> None:
        """Delete a candidate; `UnknownNameError` if there is none of this number."""
        drop_candidate(self._layout, number)

    def clean(self) -> None:
        """Delete leftovers of interrupted writers, objects and candidates no longer needed, and old checkpoints."""
        self._sweep_objects()
        if self._layout.candidates.exists():
            sweep_candidates(self._layout, self._generation())
        self.collect()
        for path in self._layout.scratch.iterdir():
            if path.stat().st_mtime < time.time() - SCRATCH_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    def _generation(self) -> int:
        with self._database.read() as connection:
            return read_generation(connection)

    def keep_reserve(self) -> None:
        """Keep room on the disk for a change that frees storage: it writes the objects of the workspace again."""
        with self._database.read() as connection:
            shared = select(func.coalesce(func.sum(ObjectRow.bytes), 0)).join(SharedRow)
            size = connection.execute(shared).scalar_one()
        keep_reserve(self._layout, size)

    def _write_objects(self, plan: Plan) -> list[Manifest]:
        manifests = []
        for placement in plan.placements:
            aside = self._layout.objects / f".{placement.folder}"
            manifests.append(write_artifact(aside, placement.artifact))
            aside.replace(self._layout.objects / placement.folder)
        sync(self._layout.objects)
        return manifests

    def _sweep_objects(self) -> None:
        names = [path.name for path in self._layout.objects.iterdir()]
        with self._database.read() as connection:
            if len(names) == connection.execute(select(func.count()).select_from(ObjectRow)).scalar_one():
                return  # every folder belongs to an object
            known = set(connection.execute(select(ObjectRow.folder)).scalars())
        for name in names:
            if name not in known:
                shutil.rmtree(self._layout.objects / name, ignore_errors=True)

    def scrub(self) -> bool:
        """Leave nothing of deleted rows in the database's files; return whether no reader prevented that."""
        return self._database.scrub()

    def waiting(self) -> list[str]:
        """Return the folders of replaced objects that readers still keep, and leftovers of deletions."""
        with self._database.read() as connection:
            used = set(connection.execute(select(ObjectRow.folder).where(ObjectRow.released_event.is_(None))).scalars())
            pinned = select(ObjectRow.folder).join(PinObjectRow, PinObjectRow.object_id == ObjectRow.id)
            used |= set(connection.execute(pinned).scalars())
        return sorted(path.name for path in self._layout.objects.iterdir() if path.name not in used)

    def collect(self) -> None:
        """Delete replaced objects that neither a reader nor a pinned generation needs."""
        with self._database.read() as connection:
            oldest = oldest_lease(self._layout, read_generation(connection))
            pinned = select(PinObjectRow.object_id)
            unwanted = and_(ObjectRow.released_event <= oldest, ObjectRow.id.not_in(pinned))
            folders = connection.execute(select(ObjectRow.folder).where(unwanted)).scalars().all()
        if folders:
            with self._database.write() as connection:
                connection.execute(delete(ObjectRow).where(unwanted))
        for folder in folders:
            shutil.rmtree(self._layout.objects / folder, ignore_errors=True)
