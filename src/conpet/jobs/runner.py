"""Runs the jobs of a workspace: one at a time, in a process of its own, by whichever server process has the lease."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from conpet.commands.purge import finish_waiting
from conpet.errors import UnknownNameError, WorkspaceBusyError, is_out_of_memory, reason_of
from conpet.evaluation.history import JOB
from conpet.jobs.perform import committed
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import Job, JobState
from conpet.problem_details import ApiProblem, document
from conpet.store import Store
from conpet.store.layout import Layout

_LOG = logging.getLogger("conpet.jobs")
LOSSES = 5
"""A job whose process was lost this often is marked as failed."""
_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0
"""Seconds until the next try after the disk was full or could not be read."""
_CANCEL_SECONDS = 60.0
"""Most seconds for a job to stop after it was cancelled; then its process is killed, which is as safe.

It includes the start of the process, which takes long on a busy machine.
"""
_IDLE_SECONDS = 60.0
"""A process waits this long for the next job, so that its libraries need not be loaded again."""
_FINISH_SECONDS = 1.0
"""Seconds between two tries to complete a deletion that waits for readers of an earlier generation."""
_CLOSE_SECONDS = 10.0
_RUNNING = (JobState.RUNNING, JobState.CANCELLING)
_ERRORS = "stderr.txt"
_SHOWN_BYTES = 4000


class Worker:
    """A process that runs jobs, one after another.

    It holds the lease, too: as long as it lives, no other process runs jobs of the workspace.

    Args:
        command: Starts it.
        environment: Its environment variables.
        lease: The open file of the lease.
        errors: File for its standard error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], lease: int, errors: Path) -> None:
        self._errors = errors
        self._read = 0
        with errors.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=environment,
                pass_fds=(lease,),
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def send(self, job_id: str) -> None:
        """Have it run a job, after those sent before."""
        assert self.process.stdin is not None  # noqa: S101 - it was started with a pipe
        with suppress(BrokenPipeError):  # it has just ended: the caller sees that
            self.process.stdin.write(f"{job_id}\n".encode())
            self.process.stdin.flush()

    def said(self) -> str:
        """Return the end of what it wrote to standard error since the last call."""
        content = self._errors.read_bytes()
        new, self._read = content[self._read :], len(content)
        return new[-_SHOWN_BYTES:].decode(errors="replace").strip()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it after its last job."""
        assert self.process.stdin is not None  # noqa: S101 - it was started with a pipe
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


class JobRunner:
    """Runs the jobs of a workspace in a background thread. Each server process has one; only one at a time works.

    It also completes deletions that had to wait for readers of an earlier generation.

    Args:
        workspace: The workspace's folder.
        queue: Its queue.
        backbone: As in `ConPET.open`.
        device: As in `ConPET.open`.
        log_to: As in `ConPET.open`.
        threads: Threads of a job's process for computing; by default one for each core.
        on_end: Called with a job that has ended and the seconds of its last attempt.
    """

    def __init__(
        self,
        workspace: Path,
        queue: JobQueue,
        *,
        backbone: str | None = None,
        device: str | None = None,
        log_to: Path | None = None,
        threads: int | None = None,
        on_end: Callable[[Job, float], object] = lambda job, seconds: None,
    ) -> None:
        self._workspace = workspace
        self._queue = queue
        self._backbone = backbone
        self._device = device
        self._log_to = log_to
        self._threads = threads
        self._on_end = on_end
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._problem = ""
        self._finish_at = 0.0
        self._thread = threading.Thread(target=self._run, name="conpet-jobs", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float = 30.0) -> None:
        """Stop: a running job writes a checkpoint and goes back to the queue.

        Args:
            seconds: Most seconds for that; then its process is killed, and goes on from an older checkpoint.
        """
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(seconds + _CANCEL_SECONDS)

    def _run(self) -> None:
        pause = _POLL_SECONDS
        while not self._stopping.wait(pause):
            try:
                if self._queue.waiting():
                    self._work()
                self._finish_forgetting()
                self._problem, pause = "", _POLL_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, jobs must not wait for ever
                reason = "memory ran out" if is_out_of_memory(error) else f"{type(error).__name__}: {reason_of(error)}"
                if reason != self._problem:
                    _LOG.exception("jobs cannot be run (%s); tried again every %s seconds", reason, _RETRY_SECONDS)
                self._problem, pause = reason, _RETRY_SECONDS

    def _work(self) -> None:
        """Run jobs, if no other process does, until none has come for a while."""
        with self._queue.lease() as lease:
            if lease is None:
                return
            self._queue.sweep()
            worker: Worker | None = None
            idle_since = time.monotonic()
            try:
                while not self._stopping.is_set() and time.monotonic() - idle_since < _IDLE_SECONDS:
                    job = self._queue.claim() if self._queue.waiting() else None
                    if job is None:
                        self._finish_forgetting()
                        self._stopping.wait(_POLL_SECONDS)
                        continue
                    if self._queue.lost(job.id) >= LOSSES:
                        self._give_up(job)
                        continue
                    if worker is None or not worker.alive:
                        worker = Worker(self._command(), self._environment(), lease, self._queue.folder / _ERRORS)
                    self._run_job(job, worker)
                    idle_since = time.monotonic()
            finally:
                if worker is not None:
                    worker.close()

    def _finish_forgetting(self) -> None:
        """Complete a deletion that waits for readers, and put the new receipt into the result of its job."""
        now = time.monotonic()
        if now < self._finish_at or not Layout(self._workspace).forgetting.exists():
            return
        self._finish_at = now + _FINISH_SECONDS
        with suppress(WorkspaceBusyError):
            finished = finish_waiting(Store.open(self._workspace))
            if finished is None:
                return
            event, receipt = finished
            _LOG.info("the deletion of generation %d was completed: no process reads its data any more", event.id)
            with suppress(UnknownNameError):  # it was no job's, or the job is not remembered any more
                self._queue.complete(event.detail.get(JOB, ""), {"receipt": receipt})
                self._queue.log(event.detail[JOB], "no process reads the forgotten data any more: it is deleted")

    def _run_job(self, job: Job, worker: Worker) -> None:
        """Have a job run; tell its process to stop when the server does, and kill it if it takes too long."""
        _LOG.info("job %s (%s): attempt %d in process %d", job.id, job.kind, job.attempts, worker.process.pid)
        worker.send(job.id)
        told, began = False, time.monotonic()
        limit = float("inf")
        while (state := self._queue.state(job.id)) in _RUNNING and worker.alive:
            if self._stopping.is_set() and not told:
                worker.process.terminate()
                told, limit = True, self._deadline
            if state is JobState.CANCELLING:
                limit = min(limit, time.monotonic() + _CANCEL_SECONDS)
            if time.monotonic() > limit:
                worker.kill()
            time.sleep(_POLL_SECONDS / 4)
        if self._stopping.is_set() and not worker.alive:
            self._queue.requeue(job.id)  # it was killed for the stop, through no fault of the job
        self._log_end(job, worker)
        ended = self._queue.get(job.id)
        if ended.state.ended:
            self._on_end(ended, time.monotonic() - began)

    def _command(self) -> list[str]:
        options = (str(self._workspace), self._backbone or "", self._device or "", str(self._log_to or ""))
        return [sys.executable, "-m", "conpet.jobs.process", *options]

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        return environment

    def _log_end(self, job: Job, worker: Worker) -> None:
        state, said = self._queue.state(job.id), worker.said()
        if state in _RUNNING:
            status = worker.process.wait()
            _LOG.error(
                "the process of job %s ended with status %d without a result%s", job.id, status, said and f": {said}"
            )
            reason = f"signal {-status}" if status < 0 else f"status {status}"
            self._queue.log(job.id, f"the process was lost ({reason}); the job goes on from its checkpoint")
        elif said:
            _LOG.error("job %s: %s; its process wrote: %s", job.id, state, said)
        else:
            _LOG.info("job %s: %s", job.id, state)

    def _give_up(self, job: Job) -> None:
        """End a job whose process was lost too often: it has failed, unless its change was made before."""
        made = committed(self._workspace, job.id)
        if made is not None and not job.kind.in_parts:
            self._queue.log(job.id, "the change was already made when the process was lost")
            self._on_end(self._queue.finish(job.id, JobState.SUCCEEDED, result=made), 0.0)
            return
        detail = (
            f"the process of this job was lost {LOSSES} times, so it is not tried again; memory may have run out. "
            "What it had already learned is kept"
        )
        problem = document(ApiProblem(500, "process-lost", detail), self._queue.request_id(job.id))
        self._on_end(self._queue.finish(job.id, JobState.FAILED, result=made, error=problem), 0.0)
