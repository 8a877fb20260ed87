"""The queue of a workspace's jobs, on disk. Threads and processes may share it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from conpet.artifact import sync
from conpet.errors import CorruptionError, IdempotencyError, ReadOnlyError, TooManyJobsError, UnknownNameError
from conpet.jobs.data import DATA
from conpet.jobs.records import ENDED, Job, JobEvent, JobEventKind, JobKind, JobProgress, JobRequest, JobState, actor_of
from conpet.jobs.schema import JOBS_VERSION, JobEventRow, JobRow, JobsBase
from conpet.store.access import missing_right
from conpet.store.actions import ActionLog
from conpet.store.chain import actor
from conpet.store.database import Database

FOLDER = "jobs"
"""Folder of the queue, in the workspace's folder."""
KEPT = 1000
"""Number of ended jobs that are remembered."""
WAITING = 100
"""Most jobs that wait."""
LOG_LINES = 10_000
"""Most lines in the log of a job."""
_ABANDONED_SECONDS = 3600.0
"""Uploads that were never accepted are deleted after this time."""


class JobQueue:
    """The jobs of a workspace. Holds no open file or lock between calls; made on disk with the first job.

    Args:
        workspace: The workspace's folder.
        waiting: Most jobs that may wait.
    """

    def __init__(self, workspace: Path, waiting: int = WAITING) -> None:
        self.folder = workspace / FOLDER
        self._database = Database(self.folder / "jobs.sqlite", JobsBase.metadata, JOBS_VERSION)
        self._waiting = waiting
        self._actions = ActionLog(workspace)
        self._checked = False

    # Requests

    @contextmanager
    def upload(self) -> Iterator[tuple[str, Path]]:
        """Yield the id of a new job and the folder for its data, which is deleted unless the job was submitted."""
        job_id, folder = self.stage()
        try:
            yield job_id, folder
        finally:
            if not self._exists(job_id):
                shutil.rmtree(folder, ignore_errors=True)

    def stage(self) -> tuple[str, Path]:
        """Return the id of a job that may be submitted later, and the folder for its data.

        It is deleted after an hour in which nothing is added to it, unless the job was submitted.
        """
        self.make()
        job_id = secrets.token_hex(8)
        folder = self._data(job_id)
        folder.mkdir(mode=0o700)
        return job_id, folder

    def staged(self, job_id: str) -> Path:
        """Return the folder that `stage` gave for a job.

        Raises:
            UnknownNameError: It is gone, or the job was submitted.
        """
        folder = self._data(job_id)
        if not folder.is_dir() or self._exists(job_id):
            raise UnknownNameError(
                "this upload is no longer there: it was learned or discarded, or is older than an hour"
            )
        return folder

    def discard(self, job_id: str) -> None:
        """Delete the data of a job that was not submitted."""
        shutil.rmtree(self.staged(job_id), ignore_errors=True)

    def submit(
        self,
        request: JobRequest,
        *,
        job_id: str | None = None,
        caller: str = "",
        key: str | None = None,
        digest: str = "",
        request_id: str = "",
    ) -> Job:
        """Add a job to the queue and return it; once this returns, the job is not lost.

        Args:
            request: What to do.
            job_id: The id that `upload` gave, if the job has data.
            caller: Who requests it; idempotency keys belong to their caller.
            key: Idempotency key: a second request with it returns the first job.
            digest: Digest of the whole request.
            request_id: Id of the HTTP request, for error reports.

        Raises:
            IdempotencyError: The key was used for another request.
            TooManyJobsError: Too many jobs wait.
        """
        self.make()
        if job_id is not None:
            sync(self._data(job_id) / DATA)
            sync(self._data(job_id))
        new_id = job_id or secrets.token_hex(8)
        values = {
            "id": new_id,
            "kind": str(request.kind),
            "state": str(JobState.QUEUED),
            "tasks": list(request.tasks),
            "options": dict(request.options),
            "caller": caller,
            "idempotency_key": key,
            "digest": digest,
            "request_id": request_id,
            "created": _now(),
            "attempts": 0,
            "lost": 0,
        }
        try:
            with self._database.write() as connection:
                queued = select(func.count()).where(JobRow.state == JobState.QUEUED)
                former = self._find(connection, caller, key)
                if former is None and connection.execute(queued).scalar_one() >= self._waiting:
                    raise TooManyJobsError(f"{self._waiting} jobs wait already; try again when some have ended")
                if former is None:
                    number = connection.execute(insert(JobRow).values(values).returning(JobRow.number)).scalar_one()
                    _add_event(connection, number, JobEventKind.STATE, {"state": str(JobState.QUEUED)})
                    self._record("job-requested", actor_of(caller), new_id, request.kind, request.tasks)
        except IntegrityError as error:  # the id is random, so this cannot happen
            raise CorruptionError(f"{self._database.file}: a job cannot be added ({error.orig})") from error
        if former is None:
            return self.get(new_id)
        return _same(former, digest)

    def find(self, caller: str, key: str | None, digest: str) -> Job | None:
        """Return the job that was requested with an idempotency key, or None.

        Raises:
            IdempotencyError: The key was used for another request.
        """
        if key is None or not self._exists_file():
            return None
        with self._database.read() as connection:
            former = self._find(connection, caller, key)
        return None if former is None else _same(former, digest)

    def cancel(self, job_id: str, *, by: str | None = None) -> Job:
        """Cancel a job and return it: a waiting one at once, a running one soon; an ended one does not change.

        Args:
            job_id: The job.
            by: Who cancels it; by default the actor of this process.

        Raises:
            UnknownNameError: There is no such job.
        """
        with self._changing(job_id) as (connection, row):
            if row.state == JobState.QUEUED:
                _end(connection, row.number, JobState.CANCELLED)
            elif row.state == JobState.RUNNING:
                _set_state(connection, row.number, JobState.CANCELLING)
            if row.state in (JobState.QUEUED, JobState.RUNNING):
                self._record("job-cancelled", by, job_id, row.kind, row.tasks)
        if row.state == JobState.QUEUED:
            self._clear(job_id)
        return self.get(job_id)

    def _record(self, verb: str, by: str | None, job_id: str, kind: str, tasks: Sequence[str]) -> None:
        self._actions.append(by or actor(), verb, job=job_id, kind=str(kind), tasks=list(tasks))

    # Reading

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownNameError: There is no such job.
        """
        return _job(self._row(job_id))

    def state(self, job_id: str) -> JobState:
        """Return the state of a job."""
        return JobState(self._row(job_id).state)

    def caller(self, job_id: str) -> str:
        """Return who requested a job."""
        return str(self._row(job_id).caller)

    def request_id(self, job_id: str) -> str:
        """Return the id of the HTTP request that a job came with."""
        return str(self._row(job_id).request_id)

    def list(self, *, state: JobState | None = None, before: str | None = None, limit: int = 100) -> list[Job]:
        """Return jobs, newest first.

        Args:
            state: Only jobs in this state.
            before: Only jobs older than this one.
            limit: Most jobs.
        """
        if not self._exists_file():
            return []
        older = None if before is None else self._row(before).number
        chosen = select(JobRow.__table__).order_by(JobRow.number.desc()).limit(limit)
        if state is not None:
            chosen = chosen.where(JobRow.state == state)
        if older is not None:
            chosen = chosen.where(JobRow.number < older)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(chosen)]

    def unfinished(self) -> int:
        """Return the number of jobs that wait or run."""
        counts = self.counts()
        return sum(number for state, number in counts.items() if not state.ended)

    def concerned(self) -> set[str]:
        """Return the names of the tasks that jobs concern which wait or run."""
        if not self._exists_file():
            return set()
        with self._database.read() as connection:
            rows = connection.execute(select(JobRow.tasks).where(JobRow.state.not_in(ENDED)))
            return {task for (tasks,) in rows for task in tasks}

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state."""
        counts = dict.fromkeys(JobState, 0)
        if self._exists_file():
            by_state = select(JobRow.state, func.count()).group_by(JobRow.state)
            with self._database.read() as connection:
                counts |= {JobState(state): number for state, number in connection.execute(by_state)}
        return counts

    def events(
        self, job_id: str, after: int = 0, *, kind: JobEventKind | None = None, limit: int = 1000
    ) -> tuple[JobEvent, ...]:
        """Return what happened to a job after an event, oldest first.

        Args:
            job_id: The job.
            after: Id of an event.
            kind: Only events of this kind.
            limit: Most events.

        Raises:
            UnknownNameError: There is no such job.
        """
        number = self._row(job_id).number
        chosen = (
            select(JobEventRow.__table__)
            .where(JobEventRow.job == number, JobEventRow.id > after)
            .order_by(JobEventRow.id)
            .limit(limit)
        )
        if kind is not None:
            chosen = chosen.where(JobEventRow.kind == kind)
        with self._database.read() as connection:
            rows = connection.execute(chosen)
            return tuple(JobEvent(row.id, row.time, JobEventKind(row.kind), row.data) for row in rows)

    def data(self, job_id: str) -> Path:
        """Return the file with the checked data of a job."""
        return self._data(job_id) / DATA

    # Running

    @contextmanager
    def lease(self) -> Iterator[int | None]:
        """Hold the lease of the workspace's only runner; yield its open file, or None if another process has it.

        The operating system ends the lease with the last process that has the file open, whatever the clock says.
        """
        descriptor = os.open(self.folder / "lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield descriptor
        finally:
            os.close(descriptor)

    def waiting(self) -> bool:
        """Return whether a job waits, or was running when its runner ended."""
        return self.unfinished() > 0

    def claim(self) -> Job | None:
        """Take the next job, as the holder of the lease: one whose process was lost, otherwise the oldest that waits.

        A lost job keeps its state and counts the loss.
        """
        with self._database.write() as connection:
            lost = JobRow.state.in_([JobState.RUNNING, JobState.CANCELLING])
            chosen = select(JobRow.__table__).order_by(JobRow.number).limit(1)
            row = connection.execute(chosen.where(lost)).first()
            if row is not None:
                counted = {"lost": row.lost + 1, "attempts": row.attempts + 1}
                connection.execute(update(JobRow).where(JobRow.number == row.number).values(counted))
            else:
                row = connection.execute(chosen.where(JobRow.state == JobState.QUEUED)).first()
                if row is None:
                    return None
                started = {"started": row.started or _now(), "attempts": row.attempts + 1}
                connection.execute(update(JobRow).where(JobRow.number == row.number).values(started))
                _set_state(connection, row.number, JobState.RUNNING)
        return self.get(row.id)

    def lost(self, job_id: str) -> int:
        """Return how often the process of a job was lost."""
        return int(self._row(job_id).lost)

    def requeue(self, job_id: str) -> None:
        """Put a running job back to the front of the queue; others do not change."""
        with self._changing(job_id) as (connection, row):
            if row.state == JobState.RUNNING:
                _set_state(connection, row.number, JobState.QUEUED)

    def report_progress(self, job_id: str, progress: JobProgress) -> None:
        """Store how far a job is."""
        with self._changing(job_id) as (connection, row):
            changed = update(JobRow).where(JobRow.number == row.number).values(progress=progress.to_json())
            connection.execute(changed)
            _add_event(connection, row.number, JobEventKind.PROGRESS, progress.to_json())

    def log(self, job_id: str, message: str) -> None:
        """Add a line to the log of a job."""
        with self._changing(job_id) as (connection, row):
            lines = select(func.count()).where(JobEventRow.job == row.number, JobEventRow.kind == JobEventKind.LOG)
            if connection.execute(lines).scalar_one() < LOG_LINES:
                _add_event(connection, row.number, JobEventKind.LOG, {"message": message})

    def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> Job:
        """End a job, delete its data, and forget the oldest ended jobs.

        Args:
            job_id: The job.
            state: The state it ends in.
            result: What it did.
            error: Why it failed, as problem details.
        """
        with self._changing(job_id) as (connection, row):
            _end(connection, row.number, state, result, error)
            kept = select(JobRow.number).where(JobRow.state.in_(ENDED)).order_by(JobRow.number.desc())
            oldest = connection.execute(kept.offset(KEPT - 1).limit(1)).scalar()
            if oldest is not None:
                connection.execute(delete(JobRow).where(JobRow.state.in_(ENDED), JobRow.number < oldest))
        self._clear(job_id)
        return self.get(job_id)

    def complete(self, job_id: str, result: Mapping[str, Any]) -> None:
        """Change parts of the result of an ended job, after what it left over was completed.

        Args:
            job_id: The job.
            result: The new parts of its result, by name.

        Raises:
            UnknownNameError: There is no such job any more.
        """
        with self._changing(job_id) as (connection, row):
            changed = {**(row.result or {}), **result}
            connection.execute(update(JobRow).where(JobRow.number == row.number).values(result=changed))

    def sweep(self) -> None:
        """Delete data that belongs to no unfinished job: of processes that were killed."""
        folder = self.folder / "data"
        if not folder.is_dir():
            return
        unfinished = select(JobRow.id).where(JobRow.state.not_in(ENDED))
        with self._database.read() as connection:
            needed = set(connection.execute(unfinished).scalars())
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                recent = time.time() - path.stat().st_mtime < _ABANDONED_SECONDS
                if path.name not in needed and (not recent or self._exists(path.name)):
                    shutil.rmtree(path, ignore_errors=True)

    # Files

    def _data(self, job_id: str) -> Path:
        if not job_id.isalnum():
            raise UnknownNameError("no such job")
        return self.folder / "data" / job_id

    def _clear(self, job_id: str) -> None:
        shutil.rmtree(self._data(job_id), ignore_errors=True)

    def make(self) -> None:
        """Make the folder and the database, if there are none; complete or not at all.

        Raises:
            ReadOnlyError: This process may not write them.
        """
        made = self._exists_file()
        place = self.folder if made else self.folder.parent
        if reason := missing_right(place):
            raise ReadOnlyError(f"no job can be added: {place} {reason}")
        if made:
            return
        for folder in (self.folder, self.folder / "data"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._database.make()

    def _exists_file(self) -> bool:
        """Return whether the database exists, after checking its schema once."""
        if not self._database.file.exists():
            return False
        if not self._checked:
            with self._database.read() as connection:
                self._database.require_version(
                    connection,
                    "serve the workspace with the conpet that wrote it, or delete the folder to forget its jobs",
                )
            self._checked = True
        return True

    def _exists(self, job_id: str) -> bool:
        with self._database.read() as connection:
            return connection.execute(select(JobRow.number).where(JobRow.id == job_id)).first() is not None

    def _row(self, job_id: str) -> Row[Any]:
        row = None
        if self._exists_file():
            with self._database.read() as connection:
                row = connection.execute(select(JobRow.__table__).where(JobRow.id == job_id)).first()
        if row is None:
            raise UnknownNameError(f"no job with this id; the last {KEPT:,} ended jobs are remembered")
        return row

    @staticmethod
    def _find(connection: Connection, caller: str, key: str | None) -> Row[Any] | None:
        if key is None:
            return None
        same = (JobRow.caller == caller, JobRow.idempotency_key == key)
        return connection.execute(select(JobRow.__table__).where(*same)).first()

    @contextmanager
    def _changing(self, job_id: str) -> Iterator[tuple[Connection, Row[Any]]]:
        """Yield a write transaction and the row of a job, as it was at its beginning."""
        self._row(job_id)  # reports a missing database
        with self._database.write() as connection:
            row = connection.execute(select(JobRow.__table__).where(JobRow.id == job_id)).one()
            yield connection, row


def _set_state(connection: Connection, number: int, state: JobState) -> None:
    connection.execute(update(JobRow).where(JobRow.number == number).values(state=str(state)))
    _add_event(connection, number, JobEventKind.STATE, {"state": str(state)})


def _end(
    connection: Connection,
    number: int,
    state: JobState,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> None:
    values = {
        "ended": _now(),
        "result": None if result is None else dict(result),
        "error": None if error is None else dict(error),
    }
    connection.execute(update(JobRow).where(JobRow.number == number).values(values))
    # A digest of a short text can be guessed.
    forgot = (JobRow.number == number, JobRow.kind == JobKind.FORGET)
    connection.execute(update(JobRow).where(*forgot).values(digest=""))
    passed = (JobEventRow.job == number, JobEventRow.kind == JobEventKind.PROGRESS)
    connection.execute(delete(JobEventRow).where(*passed))
    _set_state(connection, number, state)


def _add_event(connection: Connection, number: int, kind: JobEventKind, data: Mapping[str, Any]) -> None:
    connection.execute(insert(JobEventRow).values(job=number, time=_now(), kind=str(kind), data=dict(data)))


def _same(row: Row[Any], digest: str) -> Job:
    if row.digest and row.digest != digest:
        raise IdempotencyError(
            "this idempotency key was used for another request; use a new key, or send the same request again"
        )
    return _job(row)


def _job(row: Row[Any]) -> Job:
    return Job(
        row.id,
        JobKind(row.kind),
        JobState(row.state),
        tuple(row.tasks),
        row.options,
        row.created,
        row.started,
        row.ended,
        row.attempts,
        JobProgress.from_json(row.progress) if row.progress else None,
        row.result,
        row.error,
    )


def _now() -> datetime:
    return datetime.now(UTC)
