"""The process that runs jobs. It may be killed at any moment: the next attempt goes on from what is on disk."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from conpet.errors import ConpetError, StoppedError, is_out_of_memory
from conpet.evaluation.history import JOB
from conpet.jobs.perform import Performer, committed
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import Job, JobProgress, JobState, actor_of
from conpet.problem_details import document, problem_of

_LOOK_SECONDS = 0.2
"""Seconds between two looks at whether the job was cancelled."""
_REPORT_SECONDS = 0.5
"""Least seconds between two reports of the same stage."""
_REPORT_SHARE = 0.01
"""Least progress between two reports of the same stage."""
_NICENESS = 10
"""Answers come before learning when they compete for cores."""


class JobProcess:
    """Runs one job, and keeps its record up to date.

    Args:
        queue: The queue.
        workspace: The workspace's folder.
        job_id: The job, already claimed.
        backbone: As in `ConPET.open`.
        device: As in `ConPET.open`.
        log_to: As in `ConPET.open`.
        stop: Set when the job is to stop at its next step and to go back to the queue.
    """

    def __init__(
        self,
        queue: JobQueue,
        workspace: Path,
        job_id: str,
        backbone: str | None,
        device: str | None,
        log_to: str | None,
        stop: threading.Event,
    ) -> None:
        self._queue = queue
        self._path = workspace
        self._id = job_id
        self._backbone = backbone
        self._device = device
        self._log_to = log_to
        self._stop = stop
        self._looked = 0.0
        self._last = JobProgress("", 0.0)
        self._reported = 0.0

    def run(self) -> bool:
        """Run the job; return whether the process is fit for another one."""
        job = self._queue.get(self._id)
        try:
            self._check()
            result = self._perform(job)
        except StoppedError:
            self._stopped()
            return True
        except Exception as error:  # noqa: BLE001 - whatever it is, the job has failed
            if not isinstance(error, ConpetError) or isinstance(error, OSError):
                traceback.print_exc()  # to standard error: the server's log
            problem = document(problem_of(error), self._queue.request_id(self._id))
            self._queue.log(self._id, f"failed: {problem['detail']}")
            self._queue.finish(self._id, JobState.FAILED, result=committed(self._path, self._id), error=problem)
            return isinstance(error, ConpetError) and not is_out_of_memory(error)
        self._queue.finish(self._id, JobState.SUCCEEDED, result=result)
        return True

    def _perform(self, job: Job) -> dict[str, object]:
        from conpet.api import ConPET

        self._queue.log(self._id, f"attempt {job.attempts} started")
        caller = self._queue.caller(self._id)
        with (
            warnings.catch_warnings(),
            ConPET.open(
                self._path,
                backbone=self._backbone,
                device=self._device,
                event_detail={JOB: self._id},
                actor=actor_of(caller),
                log_to=self._log_to,
            ) as workspace,
        ):
            warnings.showwarning = self._show_warning  # type: ignore[assignment] # the last parameter is `line` there
            data = self._queue.data(self._id)
            return Performer(workspace, job, data, self._report, lambda line: self._queue.log(self._id, line)).run()

    def _stopped(self) -> None:
        if self._queue.state(self._id) is not JobState.CANCELLING:
            self._queue.log(self._id, "stopped; it goes on when the server runs again")
            self._queue.requeue(self._id)
            return
        done = committed(self._path, self._id)
        made = done is not None and not self._queue.get(self._id).kind.in_parts
        if made:
            self._queue.log(self._id, "the change was already made when the job was cancelled")
        else:
            self._queue.log(self._id, "cancelled")
        self._queue.finish(self._id, JobState.SUCCEEDED if made else JobState.CANCELLED, result=done)

    def _check(self) -> None:
        """Raise `StoppedError` if the job is to stop or was cancelled."""
        if self._stop.is_set():
            raise StoppedError("the server stops")
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if self._queue.state(self._id) is JobState.CANCELLING:
                raise StoppedError("the job was cancelled")

    def _report(self, progress: JobProgress) -> None:
        self._check()
        last, now = self._last, time.monotonic()
        same = (progress.stage, progress.number) == (last.stage, last.number)
        little = now - self._reported < _REPORT_SECONDS or abs(progress.share - last.share) < _REPORT_SHARE
        if same and little:
            return
        self._last, self._reported = progress, now
        self._queue.report_progress(self._id, progress)

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        source: str | None = None,
    ) -> None:
        self._queue.log(self._id, f"warning: {message}")


def main(arguments: Sequence[str]) -> int:
    """Run the jobs whose ids come on standard input, until it ends, which it does with the server at the latest.

    Args:
        arguments: The workspace's folder, the backbone, the device and the folder of the record ("" for the
            workspace's).
    """
    path, backbone, device, log_to = arguments
    os.nice(_NICENESS)
    workspace = Path(path)
    job_queue, stop, ids = JobQueue(workspace), threading.Event(), SimpleQueue[str | None]()

    def end(*_: object) -> None:
        stop.set()
        ids.put(None)

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_read_ids, args=(ids, stop), daemon=True).start()
    while job_id := ids.get():
        options = (backbone or None, device or None, log_to or None)
        if not JobProcess(job_queue, workspace, job_id, *options, stop).run():
            return 1
    return 0


def _read_ids(ids: SimpleQueue[str | None], stop: threading.Event) -> None:
    """Read ids until the server has ended, in whatever way; then the running job stops."""
    for line in sys.stdin:
        ids.put(line.strip())
    stop.set()
    ids.put(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
