"""Create, open, read and change a workspace on disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from conpet.artifact import sync
from conpet.errors import CorruptionError, UnknownNameError, WorkspaceExistsError, WorkspaceNotFoundError
from conpet.evaluation.gate import CandidateRecord
from conpet.store import chain
from conpet.store.access import require_writable
from conpet.store.actions import ActionLog
from conpet.store.candidates import CandidateChange, read_candidate, read_records
from conpet.store.database import Database
from conpet.store.layout import DATABASE, Layout
from conpet.store.leases import offer_lease, take_lease
from conpet.store.ledger import Ledger
from conpet.store.lock import hold_lock
from conpet.store.pins import read_pins
from conpet.store.reading import LAST, read_events, read_generation, read_header, read_history, read_measured
from conpet.store.records import EventRecord, EventSummary, Header, Metric, Snapshot
from conpet.store.reserve import FREEING, use_reserve
from conpet.store.schema import SCHEMA_VERSION, EventRow, HeaderRow
from conpet.store.snapshot_cache import Index
from conpet.store.writer import Writer

_ABANDONED_SECONDS = 3600.0


class Store:
    """A workspace on disk. Holds no open file or lock between calls; threads and forked processes may share it.

    Use `Store.create` or `Store.open`.

    Args:
        path: The workspace's folder.
        detail: Added to the detail of every event that this object commits.
        actor: Who makes the changes; by default the user of this process.
    """

    def __init__(self, path: Path, detail: Mapping[str, Any] | None = None, actor: str | None = None) -> None:
        self._layout = Layout(path)
        self._detail = dict(detail or {})
        self._actor = actor or chain.actor()
        self._database = Database(self._layout.database)
        self._index = Index(self._layout.objects)
        self._ledger = Ledger(self._layout.root)
        self._actions = ActionLog(self._layout.root)
        self._seen: tuple[object, int] = (None, 0)  # the stamp of the database, and the generation it had

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        settings: Mapping[str, Any],
        backbone: Mapping[str, Any],
        detail: Mapping[str, Any] | None = None,
    ) -> Store:
        """Create an empty workspace at `path` atomically; the path must be free or an empty folder.

        Args:
            path: The workspace's folder; missing parents are created.
            settings: The workspace's settings (JSON-ready).
            backbone: The fingerprint of its backbone (JSON-ready).
            detail: Details of the first event of the history, "create".

        Raises:
            WorkspaceExistsError: The path exists and is not an empty folder.
        """
        final = Path(path).expanduser().resolve()
        _require_free(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final)
        aside = final.with_name(f".{final.name}.creating-{secrets.token_hex(4)}")
        try:
            _build(Layout(aside), settings, backbone, detail or {})
            _rename(aside, final)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync(final.parent)
        return cls(final)

    @staticmethod
    def require_free(path: str | os.PathLike[str]) -> None:
        """Raise `WorkspaceExistsError` unless a workspace can be created at `path`."""
        _require_free(Path(path).expanduser().resolve())

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, detail: Mapping[str, Any] | None = None, actor: str | None = None
    ) -> Store:
        """Open the workspace at `path`.

        Args:
            path: The workspace's folder.
            detail: Added to the detail of every event that the store commits, for example the job.
            actor: Who makes the changes; by default the user of this process.

        Raises:
            WorkspaceNotFoundError: There is no workspace.
            CorruptionError: It is damaged, or has the schema of another version of conpet.
        """
        folder = Path(path).expanduser().resolve()
        _require_workspace(folder)
        store = cls(folder, detail, actor)
        store._require_schema()
        for part in store._layout.folders:  # copying tools and archives may drop empty folders
            with suppress(OSError):  # only a change needs them, and reports that they are missing
                part.mkdir(exist_ok=True)
        return store

    @property
    def path(self) -> Path:
        """The workspace's folder."""
        return self._layout.root

    @property
    def actor(self) -> str:
        """Who makes the changes of this object."""
        return self._actor

    @property
    def detail(self) -> Mapping[str, Any]:
        """What this object adds to the detail of every event."""
        return self._detail

    @property
    def ledger(self) -> Ledger:
        """What every operation on the workspace has cost."""
        return self._ledger

    @property
    def actions(self) -> ActionLog:
        """What people did beside the changes of the history."""
        return self._actions

    def generation(self) -> int:
        """Return the id of the last event: it grows with every change, also by other processes."""
        stamp, seen = self._database.stamp(), self._seen
        if stamp is not None and stamp == seen[0]:
            return seen[1]
        with self._database.read() as connection:
            generation = read_generation(connection)
        self._seen = (stamp, generation)
        return generation

    def header(self) -> Header:
        """Return the description of the workspace, with its current settings."""
        with self._database.read() as connection:
            return read_header(connection)

    def snapshot(self) -> Snapshot:
        """Return the current workspace with unread contents; close or drop it when it is outdated."""
        lease = take_lease(self._layout, self.generation())
        with self._database.read() as connection:
            return self._index.snapshot(connection, lease)

    def pinned(self) -> list[Snapshot]:
        """Return the pinned generations with unread contents, oldest first; close or drop them soon."""
        with self._database.read() as connection:
            generations = read_pins(connection)
        snapshots = []
        for generation in generations:
            with suppress(UnknownNameError):  # released meanwhile
                snapshots.append(self.pinned_snapshot(generation))
        return snapshots

    def pinned_snapshot(self, generation: int) -> Snapshot:
        """Return a pinned generation with unread contents; close or drop it soon.

        Raises:
            UnknownNameError: The generation is not pinned.
        """
        lease = take_lease(self._layout, generation)
        with self._database.read() as connection:
            return self._index.pinned(connection, generation, lease)

    def events(self, after: int = 0, until: int = LAST) -> list[EventRecord]:
        """Return the events after event `after`, up to event `until`, oldest first."""
        with self._database.read() as connection:
            return read_events(connection, after, until)

    def measured(self, task: str, metric: str) -> dict[int, Metric]:
        """Return a metric of a task after each event that measured it, by the id of the event, oldest first."""
        with self._database.read() as connection:
            return read_measured(connection, task, metric)

    def history(self, *, before: int | None = None, limit: int | None = None, search: str = "") -> list[EventSummary]:
        """Return events without their measurements, newest first.

        Args:
            before: Only events before this one.
            limit: Most events; None for all.
            search: Only events that have all of these words in their verb, task, actor, detail or digest.
        """
        with self._database.read() as connection:
            return read_history(connection, before=before, limit=limit, search=search)

    def candidates(self) -> list[CandidateRecord]:
        """Return the records of all candidates, oldest first."""
        return read_records(self._layout, self.generation())

    def candidate(self, number: int) -> CandidateChange:
        """Return a candidate for the present generation, with its contents; errors as in `read_candidate`."""
        return read_candidate(self._layout, number, self.generation())

    @contextmanager
    def write(self, verb: str, wait_seconds: float | None = None) -> Iterator[Writer]:
        """Be the only writer, across all threads and processes, during a `with` block.

        A snapshot taken inside the block cannot be changed by other writers.

        Args:
            verb: The operation, named in the message to waiting processes.
            wait_seconds: Most seconds to wait for another writer; 0 fails at once, None waits without limit.

        Raises:
            ReadOnlyError: This process may not write the workspace.
            WorkspaceBusyError: Another writer is still active after `wait_seconds`.
        """
        self.require_writable()
        with hold_lock(self._layout.root, verb, wait_seconds):
            if verb in FREEING:
                use_reserve(self._layout)
            writer = Writer(self._layout, self._database, self._detail, self._actor)
            try:
                writer.clean()
                yield writer
            finally:
                writer.keep_reserve()

    def require_writable(self) -> None:
        """Raise `ReadOnlyError` unless this process may write the workspace."""
        require_writable(self._layout)

    def scratch(self, digest: str) -> Path:
        """Return the folder for checkpoints of the task with this digest, creating it if needed."""
        folder = self._layout.scratch_of(digest)
        folder.mkdir(exist_ok=True)
        return folder

    def scratches(self) -> list[str]:
        """Return all digests with a folder for checkpoints."""
        return sorted(path.name for path in self._layout.scratch.iterdir())

    def bytes_on_disk(self) -> int:
        """Return the size of what is in the workspace's folder, with checkpoints, without the room it keeps free."""
        total = 0
        for folder, _, names in os.walk(self._layout.root):
            for name in names:
                if Path(folder) / name == self._layout.reserve:
                    continue
                try:
                    total += (Path(folder) / name).stat().st_size
                except FileNotFoundError:  # a writer deleted it meanwhile
                    continue
        return total

    def wrong_sizes(self) -> list[CorruptionError]:
        """Check the sizes of the files that predictions may need, without reading any; return what is damaged."""
        problems = []
        with self.snapshot() as snapshot:
            readers = {reader.folder: reader for reader in snapshot.shared.values()}
            for task in snapshot.tasks:
                readers |= {reader.folder: reader for reader in task.active.objects.values()}
            for reader in readers.values():
                try:
                    reader.check_sizes()
                except CorruptionError as problem:
                    problems.append(problem)
        return problems

    def verify(self) -> list[CorruptionError]:
        """Check the database and hash every object, also of pinned generations; return what is damaged."""
        problems = []
        with self._database.read() as connection:
            findings = connection.execute(text("PRAGMA integrity_check")).scalars().all()
            wrong = [] if findings == ["ok"] else [*findings]
            lost = {(row[0], row[2]) for row in connection.execute(text("PRAGMA foreign_key_check"))}
            wrong += [f"rows of the table {own} belong to rows of {other} that are gone" for own, other in sorted(lost)]
            if wrong:
                report = "; ".join(wrong)
                problems.append(CorruptionError(f"{self._layout.database} is damaged ({report}); restore a backup"))
        snapshots = [self.snapshot(), *self.pinned()]
        readers = {reader.folder: reader for snapshot in snapshots for reader in snapshot.readers()}
        for reader in readers.values():
            try:
                reader.verify()
            except CorruptionError as problem:
                problems.append(problem)
        for snapshot in snapshots:
            snapshot.close()
        return problems

    def history_breaks(self) -> list[chain.Break]:
        """Return where the history, or what it describes, is not what was recorded; see `conpet.store.chain`."""
        with self._database.read() as connection:
            events = read_events(connection, 0)
            return [*chain.breaks([chain.to_json(event) for event in events]), *chain.differences(connection, events)]

    def _require_schema(self) -> None:
        with self._database.read() as connection:
            schema = connection.execute(text("PRAGMA user_version")).scalar_one()
            if not schema:
                raise CorruptionError(f"{self._layout.database} was not written by conpet; restore a backup")
            if schema != SCHEMA_VERSION:
                maker = connection.execute(text("SELECT conpet_version FROM header")).scalar_one()
                raise CorruptionError(
                    f"{self.path} has schema {schema}, written by conpet {maker}; conpet {version('conpet')} "
                    f"reads schema {SCHEMA_VERSION}: open it with the conpet that wrote it"
                )


def _require_free(path: Path) -> None:
    if (path / DATABASE).exists():
        raise WorkspaceExistsError(f"a workspace already exists at {path}; open it, or name another folder")
    if path.is_dir() and any(path.iterdir()):
        raise WorkspaceExistsError(f"{path} is a folder with other files; name a new or an empty folder")
    if path.exists() and not path.is_dir():
        raise WorkspaceExistsError(f"{path} is a file; name a new or an empty folder")


def _require_workspace(path: Path) -> None:
    if path.joinpath(DATABASE).is_file():
        return
    what = "the folder does not exist"
    if path.is_dir():
        what = f"the folder has no {DATABASE}, so it is not a workspace"
    elif path.exists():
        what = "it is a file"
    raise WorkspaceNotFoundError(
        f"no workspace at {path}: {what}; create one with `conpet init` or `ConPET.create`, or correct the path"
    )


def _remove_abandoned(final: Path) -> None:
    """Remove the leftovers of interrupted creations, except recent ones, which may still be running."""
    for path in final.parent.iterdir():
        if path.name.startswith(f".{final.name}.creating-"):
            try:
                abandoned = path.stat().st_mtime < time.time() - _ABANDONED_SECONDS
            except FileNotFoundError:
                continue
            if abandoned:
                shutil.rmtree(path, ignore_errors=True)


def _build(layout: Layout, settings: Mapping[str, Any], backbone: Mapping[str, Any], detail: Mapping[str, Any]) -> None:
    for folder in (layout.root, *layout.folders):
        folder.mkdir()
    database = Database(layout.database)
    database.create()
    now = datetime.now(UTC)
    with database.write() as connection:
        connection.execute(
            insert(HeaderRow).values(
                settings=dict(settings), backbone=dict(backbone), created=now, conpet_version=version("conpet")
            )
        )
        first = {"time": now, "verb": "create", "detail": dict(detail), "actor": chain.actor()}
        connection.execute(insert(EventRow).values(**first, bytes_stored=0, written={}, digest=""))
        chain.create(connection)
        offer_lease(layout, read_generation(connection))
    sync(layout.database)
    sync(layout.root)


def _rename(aside: Path, final: Path) -> None:
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise WorkspaceExistsError(f"{final} was just created by another process; open it instead") from error
        raise
