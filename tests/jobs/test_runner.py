"""Jobs are run once, by one process, whatever is killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conpet import ConPET, Task
from conpet.evaluation.history import JOB
from conpet.jobs.data import DATA, write_tasks
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import Job, JobEventKind, JobKind, JobRequest, JobState
from conpet.jobs.runner import LOSSES, JobRunner
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, THIRD = stream()
SECONDS = 240
SERVER = "import sys, time; from pathlib import Path; from conpet.jobs.queue import JobQueue; \
from conpet.jobs.runner import JobRunner; path = Path(sys.argv[1]); \
JobRunner(path, JobQueue(path)).start(); time.sleep(600)"


@contextmanager
def running(path: Path) -> Iterator[JobQueue]:
    queue = JobQueue(path)
    runner = JobRunner(path, queue)
    runner.start()
    yield queue
    runner.stop()


def add(queue: JobQueue, *tasks: Task) -> Job:
    with queue.upload() as (job_id, folder):
        write_tasks(folder / DATA, tasks)
        names = tuple(task.name for task in tasks)
        return queue.submit(JobRequest(JobKind.LEARN, {"evaluate": False}, names), job_id=job_id)


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def ended(queue: JobQueue, job: Job) -> Job:
    wait_until(lambda: queue.state(job.id).ended)
    return queue.get(job.id)


def workers(path: Path) -> list[int]:
    """Return the processes that run jobs of a workspace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"conpet.jobs.process" in arguments and str(path).encode() in arguments:
            found.append(int(process.name))
    return found


def learned(learner: ConPET, name: str) -> int:
    return sum(event.verb == "learn" and event.task == name for event in learner.store.events())


def attempts_logged(queue: JobQueue, job: Job) -> int:
    return sum("started" in event.data["message"] for event in queue.events(job.id, kind=JobEventKind.LOG))


def slow(task: Task) -> Task:
    """Return a task that is learned for minutes."""
    return Task(f"slow {task.name}", task.train, task.validation, settings={"training": {"epochs": 5000}})


def test_killed_processes_lose_nothing_repeat_nothing_and_two_runners_run_a_job_once(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    queue = JobQueue(learner.path)
    # The process of this job was lost after the change was made, and it was cancelled too late.
    removal = queue.submit(JobRequest(JobKind.REMOVE, {"task": SECOND.name, "evaluate": False}, (SECOND.name,)))
    queue.claim()
    ConPET.open(learner.path, event_detail={JOB: removal.id}).remove(SECOND.name, evaluate=False)
    generation = learner.store.generation()
    queue.cancel(removal.id)
    with running(learner.path) as queue, running(learner.path):
        done = ended(queue, removal)
        assert done.state is JobState.SUCCEEDED
        assert done.result == {"tasks": [{"task": SECOND.name, "version": None}], "generation": generation}
        assert learner.store.generation() == generation

        job = add(queue, THIRD)
        wait_until(lambda: (now := queue.get(job.id).progress) is not None and now.stage == "module")
        (worker,) = workers(learner.path)  # one, though there are two runners
        os.kill(worker, signal.SIGKILL)
        assert ended(queue, job).state is JobState.SUCCEEDED
        assert learned(learner, THIRD.name) == 1
        last = queue.submit(JobRequest(JobKind.ACTIVATE, {"task": FIRST.name, "version": 1}, (FIRST.name,)))
        assert ended(queue, last).attempts == 1
    assert learner.store.verify() == []
    assert workers(learner.path) == []
    assert list((queue.folder / "data").iterdir()) == []


def test_a_killed_server_leaves_its_job_to_the_next_one(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    queue = JobQueue(learner.path)
    job = add(queue, SECOND, slow(THIRD))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(learner.path)])
    training = ("module", 2)
    wait_until(lambda: (now := queue.get(job.id).progress) is not None and (now.stage, now.number) == training)
    server.kill()
    server.wait()
    wait_until(lambda: queue.state(job.id) is JobState.QUEUED)  # its process has noticed, saved and stopped
    wait_until(lambda: not workers(learner.path))
    assert list((learner.path / "scratch").rglob("checkpoint.json"))
    assert learner.store.generation() == 3

    with running(learner.path) as queue:
        wait_until(lambda: attempts_logged(queue, job) == 2)
        assert queue.cancel(job.id).state is JobState.CANCELLING
        cancelled = ended(queue, job)
        assert cancelled.state is JobState.CANCELLED
        assert cancelled.result == {"tasks": [{"task": SECOND.name, "version": 1}], "generation": 3}
        failing = queue.submit(JobRequest(JobKind.REMOVE, {"task": "nothing"}, ("nothing",)), request_id="r1")
        failed = ended(queue, failing)
        assert failed.state is JobState.FAILED
        assert failed.error is not None
        assert (failed.error["status"], failed.error["request_id"]) == (404, "r1")
        stopped = add(queue, slow(THIRD))
        wait_until(lambda: attempts_logged(queue, stopped))
    assert queue.state(stopped.id) is JobState.QUEUED  # a stop is no fault of the job
    assert (queue.lost(stopped.id), workers(learner.path)) == (0, [])
    assert (learner.store.generation(), learned(learner, SECOND.name)) == (3, 1)


def test_the_process_of_a_job_needs_no_web_framework() -> None:
    code = "import sys, conpet.jobs.process; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "conpet" in imported
    assert {"fastapi", "starlette", "uvicorn"} & set(imported) == set()


def test_a_job_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    path = workspace(tmp_path, 1).path
    queue = JobQueue(path)
    job = add(queue, SECOND)
    for _ in range(LOSSES):
        queue.claim()
    with running(path) as queue:
        failed = ended(queue, job)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert "was lost 5 times" in failed.error["detail"]
