"""Waiting for a job; both clients do it."""

from __future__ import annotations

import time
from collections.abc import Callable

from conpet.client.failures import failure_of
from conpet.errors import ServerBusyError
from conpet.jobs.records import Job

Progress = Callable[[str, float], object]
LOOK_SECONDS = 0.3
"""Seconds between two looks at a job."""


class Waiting:
    """Waits for the end of one job.

    Args:
        job: The job, or its id.
        timeout: Most seconds to wait, from now; None for no limit.
        progress: Called with the name of a stage and the share done, or None.
    """

    def __init__(self, job: Job | str, timeout: float | None, progress: Progress | None) -> None:
        self.job_id = job if isinstance(job, str) else job.id
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._progress = progress

    def ends(self, found: Job) -> bool:
        """Take note of the job as it is now, and return whether it has succeeded; otherwise look again.

        Raises:
            JobFailedError: It failed or was cancelled.
            ServerBusyError: It has not ended in time.
        """
        if self._progress and found.progress:
            self._progress(found.progress.stage, found.progress.share)
        if (failure := failure_of(found)) is not None:
            raise failure
        if not found.state.ended and self._deadline is not None and time.monotonic() > self._deadline:
            raise ServerBusyError(f"job {self.job_id} is still {found.state} after {self._timeout:g} s; it goes on")
        return found.state.ended
