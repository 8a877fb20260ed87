"""The queue of jobs on disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet.errors import IdempotencyError, ReadOnlyError, TooManyJobsError, UnknownNameError
from conpet.jobs import queue as queue_module
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import JobEventKind, JobKind, JobProgress, JobRequest, JobState
from tests.helpers.permissions import public_folder, reading_only

REMOVE = JobRequest(JobKind.REMOVE, {"task": "a"}, ("a",))


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path, waiting=3)


def test_jobs_run_in_the_order_in_which_they_came(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards(datetime):
        """A clock that is set back at every look."""

        seconds = 0

        @classmethod
        def now(cls, tz: object = None) -> Backwards:
            cls.seconds += 3600
            return cls(2030, 1, 1, tzinfo=UTC) - timedelta(seconds=cls.seconds)  # type: ignore[return-value]

    monkeypatch.setattr(queue_module, "datetime", Backwards)
    submitted = [queue.submit(REMOVE).id for _ in range(3)]
    assert [job.id for job in queue.list()] == submitted[::-1]
    claimed = []
    while (job := queue.claim()) is not None:
        claimed.append(job.id)
        queue.finish(job.id, JobState.SUCCEEDED)
    assert claimed == submitted
    assert all(job.ended and job.ended < job.created for job in queue.list())


def test_a_key_makes_one_job_for_each_caller(queue: JobQueue) -> None:
    first = queue.submit(REMOVE, caller="ann", key="k", digest="d")
    assert queue.submit(REMOVE, caller="ann", key="k", digest="d") == first
    assert queue.find("ann", "k", "d") == first
    assert queue.submit(REMOVE, caller="bob", key="k", digest="other").id != first.id
    with pytest.raises(IdempotencyError, match="another request"):
        queue.submit(REMOVE, caller="ann", key="k", digest="other")
    queue.submit(REMOVE)
    with pytest.raises(TooManyJobsError, match="3 jobs wait"):
        queue.submit(REMOVE)
    assert queue.submit(REMOVE, caller="ann", key="k", digest="d") == first  # also when the queue is full


def test_only_one_holds_the_lease(queue: JobQueue) -> None:
    queue.submit(REMOVE)
    with queue.lease() as mine, JobQueue(queue.folder.parent).lease() as theirs:
        assert mine is not None
        assert theirs is None
    with queue.lease() as again:
        assert again is not None


def test_data_is_deleted_with_the_end_of_its_job(queue: JobQueue) -> None:
    with queue.upload() as (refused, folder):
        (folder / "data.json").write_text("secret")
    with queue.upload() as (accepted, folder):
        (folder / "data.json").write_text("secret")
        queue.submit(JobRequest(JobKind.LEARN), job_id=accepted)
    assert queue.data(accepted).read_text() == "secret"
    assert [path.name for path in (queue.folder / "data").iterdir()] == [accepted]
    assert refused != accepted
    assert queue.cancel(accepted).state is JobState.CANCELLED
    assert list((queue.folder / "data").iterdir()) == []


def test_events_are_read_after_any_event(queue: JobQueue) -> None:
    job = queue.submit(REMOVE)
    queue.claim()
    queue.log(job.id, "hello")
    queue.report_progress(job.id, JobProgress("module", 0.5))
    events = queue.events(job.id)
    assert [str(event.kind) for event in events] == ["state", "state", "log", "progress"]
    assert queue.events(job.id, events[1].id) == events[2:]
    assert [event.data for event in queue.events(job.id, kind=JobEventKind.LOG)] == [{"message": "hello"}]
    queue.finish(job.id, JobState.FAILED, error={"detail": "no"})
    last = queue.events(job.id, events[-1].id)
    assert [event.data for event in last] == [{"state": "failed"}]
    assert queue.get(job.id).error == {"detail": "no"}


def test_the_oldest_ended_jobs_are_forgotten(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "KEPT", 2)
    waiting = queue.submit(REMOVE)
    ids = []
    for _ in range(4):
        ids.append(queue.submit(REMOVE).id)
        queue.finish(ids[-1], JobState.SUCCEEDED)
    assert [job.id for job in queue.list()] == [ids[3], ids[2], waiting.id]
    with pytest.raises(UnknownNameError, match="no job"):
        queue.get(ids[0])


def test_nothing_is_written_before_the_first_job(queue: JobQueue) -> None:
    assert (queue.list(), queue.unfinished(), queue.find("ann", "k", "d")) == ([], 0, None)
    with pytest.raises(UnknownNameError):
        queue.get("x")
    assert not queue.folder.exists()


@pytest.mark.parametrize("used", [False, True], ids=["never used", "used"])
def test_no_job_is_added_where_this_user_may_not_write(used: bool) -> None:
    with public_folder() as folder:
        queue = JobQueue(folder)
        if used:
            queue.cancel(queue.submit(REMOVE).id)
        with reading_only(folder), pytest.raises(ReadOnlyError, match="not writable for user"):
            queue.submit(REMOVE)
        assert queue.unfinished() == 0
