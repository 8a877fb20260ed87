"""Waiting for a job and following it; both clients do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from conpet.client import calls
from conpet.client.failures import Attempts, failure_of
from conpet.errors import ServerBusyError
from conpet.jobs.records import Job, JobEvent

Progress = Callable[[str, float], object]
LOOK_SECONDS = 0.3
"""Seconds between two looks at a job."""


class Waiting:
    """Waits for the end of one job.

    Args:
        job: The job, or its id.
        timeout: Most seconds to wait, from now; None for no limit.
        progress: Called with the name of a stage and the share done when they change, or None.
    """

    def __init__(self, job: Job | str, timeout: float | None, progress: Progress | None) -> None:
        self.job_id = job if isinstance(job, str) else job.id
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._progress = progress
        self._told: tuple[str, float] | None = None

    def ends(self, found: Job) -> bool:
        """Take note of the job as it is now, and return whether it has succeeded; otherwise look again.

        Raises:
            JobFailedError: It failed or was cancelled.
            ServerBusyError: It has not ended in time.
        """
        if self._progress and found.progress:
            now = (found.progress.stage, found.progress.share)
            if now != self._told:
                self._told = now
                self._progress(*now)
        if (failure := failure_of(found)) is not None:
            raise failure
        if not found.state.ended and self._deadline is not None and time.monotonic() > self._deadline:
            raise ServerBusyError(f"job {self.job_id} is still {found.state} after {self._timeout:g} s; it goes on")
        return found.state.ended


class Following:
    """Follows the events of one job, over as many connections as it takes.

    Args:
        job_id: The job.
        after: Id of the last event already known.
        retries: How often to try again without an event in between.

    Attributes:
        ended: Whether the job has ended.
        attempts: The attempts since the last event.
    """

    def __init__(self, job_id: str, after: int, retries: int) -> None:
        self.ended = False
        self.attempts = Attempts(retries)
        self._path = calls.events_path(job_id)
        self._after = after
        self._retries = retries

    def connection(self) -> dict[str, Any]:
        """Return the arguments of the next request, which goes on after the last event."""
        self._reader = calls.EventReader()
        return {"method": "GET", "url": self._path, "headers": {"Last-Event-ID": str(self._after)}}

    def received(self, line: str) -> JobEvent | None:
        """Take a line; return an event when it is complete."""
        event = self._reader.feed(line)
        if event is not None:
            self.attempts, self._after = Attempts(self._retries), event.id
            self.ended = self.ended or event.ends
        return event
