"""Commits: contents are written aside and renamed, one transaction makes them visible, then the old is cleaned away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import delete, func, select

from conpet.artifact import Manifest, sync, write_artifact
from conpet.store.change import Change
from conpet.store.database import Database
from conpet.store.layout import Layout
from conpet.store.leases import oldest_lease
from conpet.store.plan import Plan, make_plans
from conpet.store.reading import read_events, read_generation
from conpet.store.records import EventRecord
from conpet.store.schema import ObjectRow
from conpet.store.transaction import apply_change

SCRATCH_SECONDS = 30 * 24 * 3600.0
"""Checkpoints nobody came back to for this long are deleted."""


class Writer:
    """Changes a workspace; from `Store.write` only, which holds the lock meanwhile.

    Args:
        layout: Where the workspace is.
        database: Its database.
    """

    def __init__(self, layout: Layout, database: Database) -> None:
        self._layout = layout
        self._database = database

    def commit(self, change: Change) -> EventRecord:
        """Make all of `change` visible and durable, or, on any error, nothing.

        Raises:
            UnknownNameError: If it refers to a task or version that does not exist.
            ConfigError: If it contradicts itself or would replace a module.
            OSError: If the disk is full or refuses.
        """
        return self.commit_all([change])[0]

    def commit_all(self, changes: Sequence[Change]) -> list[EventRecord]:
        """Make changes that have nothing to do with one another visible and durable together, or, on any error, none.

        Each has an event of its own. Errors as in `commit`, and:

        Raises:
            ConfigError: If two are about the same task or slot.
        """
        with self._database.read() as connection:
            plans = make_plans(connection, changes)
        try:
            manifests = [self._write_objects(plan) for plan in plans]
            with self._database.write() as connection:
                of_each = zip(changes, plans, manifests, strict=True)
                first, *_ = [apply_change(connection, *one) for one in of_each]
                events = read_events(connection, after=first - 1)
        except BaseException:
            # The database knows what belongs to it, also where the error came after the transaction had ended.
            with suppress(OSError):
                self._sweep_objects()
            raise
        with suppress(OSError):  # the change is made: what cannot be cleaned now is cleaned by the next writer
            self.collect()
        for digest in {digest for change in changes for digest in change.clear_scratch}:
            shutil.rmtree(self._layout.scratch_of(digest), ignore_errors=True)
        return events

    def clean(self) -> None:
        """Delete what interrupted writers left, superseded objects no reader wants, and forgotten checkpoints."""
        self._sweep_objects()
        self.collect()
        for path in self._layout.scratch.iterdir():
            if path.stat().st_mtime < time.time() - SCRATCH_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

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
                return  # every object has a folder, so there is none beside
            known = set(connection.execute(select(ObjectRow.folder)).scalars())
        for name in names:
            if name not in known:
                shutil.rmtree(self._layout.objects / name, ignore_errors=True)

    def collect(self) -> None:
        """Delete superseded objects no reader wants any more."""
        with self._database.read() as connection:
            oldest = oldest_lease(self._layout.leases, read_generation(connection))
            unwanted = ObjectRow.released_event <= oldest
            folders = connection.execute(select(ObjectRow.folder).where(unwanted)).scalars().all()
        if folders:
            with self._database.write() as connection:
                connection.execute(delete(ObjectRow).where(unwanted))
        for folder in folders:
            shutil.rmtree(self._layout.objects / folder, ignore_errors=True)
