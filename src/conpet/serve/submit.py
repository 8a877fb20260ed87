"""Changes that are requested: checked, and added to the queue as jobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool

from conpet.commands.checks import owner_of
from conpet.data import Examples, MixedExamples
from conpet.data.quality.rows import Mode
from conpet.errors import DataError, Problem, UnknownNameError
from conpet.jobs.data import DATA, SAMPLE, read_examples, read_tasks, write_examples
from conpet.jobs.records import Job, JobKind, JobRequest
from conpet.jobs.uploads import ExamineOptions, UploadOptions, check_upload, examine_upload
from conpet.problem_details import too_busy
from conpet.serve.auth import Caller
from conpet.serve.context import ServerContext, context_of

_UPLOADS = 8
"""Most uploads that a process receives at once."""


class Submitted(NamedTuple):
    """An accepted job, and whether an earlier request with the same key had made it."""

    job: Job
    replayed: bool = False


class NewLabels(NamedTuple):
    """Where labels go that are not known: a new task, or `into` a known one."""

    name: str
    into: str | None


async def submit_change(request: Request, caller: Caller, wanted: JobRequest, key: str | None = None) -> Submitted:
    """Check a change that has no data and add its job; a request that is sent again is not checked again.

    Args:
        request: The request.
        caller: Who asks.
        wanted: The change.
        key: Idempotency key, or None.
    """
    context = context_of(request)
    context.opened()
    digest = digest_of([wanted.kind, wanted.options])
    if (former := await former_job(context, caller, key, digest)) is not None:
        return former
    await asyncio.to_thread(_check_known, context, wanted)
    return await submit(request, caller, wanted, key, digest)


async def submit_relabelling(
    request: Request, caller: Caller, kind: JobKind, options: Mapping[str, Any], key: str | None = None
) -> Submitted:
    """Check a change of a label (`options["label"]`) and add its job; arguments as in `submit_change`."""
    owner = await asyncio.to_thread(_owner, context_of(request), options["label"])
    return await submit_change(request, caller, JobRequest(kind, options, owner), key)


async def submit_split(
    request: Request,
    caller: Caller,
    rows: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    key: str | None = None,
) -> Submitted:
    """Check the examples of finer labels, and add the job that replaces a label by these.

    Args:
        request: The request.
        caller: Who asks.
        rows: Rows with the fields of a data file.
        options: `label`, `replace`, `evaluate` and `gate`.
        key: Idempotency key, or None.
    """
    context = context_of(request)
    context.opened()
    digest = digest_of([JobKind.SPLIT, options, rows])
    if (former := await former_job(context, caller, key, digest)) is not None:
        return former
    examples = await asyncio.to_thread(Examples, tuple(rows))  # type: ignore[arg-type] # it converts and checks rows
    owner = await asyncio.to_thread(_owner, context, options["label"])
    async with uploading(context) as (job_id, folder):
        await asyncio.to_thread(write_examples, folder / DATA, examples)
        return await submit(request, caller, JobRequest(JobKind.SPLIT, options, owner), key, digest, job_id)


async def submit(
    request: Request,
    caller: Caller,
    wanted: JobRequest,
    key: str | None,
    digest: str,
    job_id: str | None = None,
) -> Submitted:
    """Add a job to the queue.

    Args:
        request: The request.
        caller: Who asks.
        wanted: The change.
        key: Idempotency key, or None.
        digest: Digest of the whole request.
        job_id: The id that `uploading` gave, if the job has data.
    """
    context = context_of(request)
    context.ready()
    accepted = await asyncio.to_thread(
        context.jobs.submit,
        wanted,
        job_id=job_id,
        caller=caller.id,
        key=key,
        digest=digest,
        request_id=request.state.request_id,
    )
    request.state.logged = {"job": accepted.id, "kind": str(wanted.kind)}
    return Submitted(accepted)


async def former_job(context: ServerContext, caller: Caller, key: str | None, digest: str) -> Submitted | None:
    """Return the job that this request has made before, or None."""
    if key is None:
        return None
    former = await asyncio.to_thread(context.jobs.find, caller.id, key, digest)
    return None if former is None else Submitted(former, replayed=True)


async def examined_upload(context: ServerContext, folder: Path, options: ExamineOptions) -> Mode:
    """Examine a file before it is learned, as soon as there is a turn; see `conpet.jobs.uploads.examine_upload`."""
    async with context.checking:
        return await asyncio.to_thread(examine_upload, folder, options)


@asynccontextmanager
async def uploading(context: ServerContext) -> AsyncIterator[tuple[str, Path]]:
    """Yield the id of a new job and the folder for its data, while an upload is received and checked.

    Raises:
        ApiProblem: There are too many at once.
    """
    if context.uploads >= _UPLOADS:
        raise too_busy(429, "too-many-uploads", "too many uploads at once; try again later", 2)
    context.uploads += 1
    try:
        async with contextmanager_in_threadpool(context.jobs.upload()) as upload:
            yield upload
    finally:
        context.uploads -= 1


async def checked_upload(
    context: ServerContext, folder: Path, upload: UploadOptions, new: NewLabels | None = None
) -> tuple[str, ...]:
    """Check an upload in itself and against the workspace; return the names of its tasks.

    Args:
        context: The server's context.
        folder: The folder that `uploading` gave, with the file `upload.FORMAT`, which is deleted.
        upload: How to read it.
        new: Where new labels go, if it holds examples of known labels; None if there may be none.

    Raises:
        DataError: The upload has errors.
        ConfigError: An option is wrong, or does not fit the workspace.
    """
    async with context.checking:
        return await asyncio.to_thread(_checked, context, folder, upload, new)


def digest_of(parts: list[Any]) -> str:
    """Return the digest of a request from its parts (JSON-ready)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _checked(context: ServerContext, folder: Path, upload: UploadOptions, new: NewLabels | None) -> tuple[str, ...]:
    """Check an upload; see `checked_upload`.

    What jobs that wait may still change is left to the job itself: labels of the tasks that they concern, and new ones.
    """
    workspace = context.opened()
    pending, concerned = context.jobs.unfinished() > 0, context.jobs.concerned()
    owners = workspace.owners
    owned = {label: task for label, task in owners.items() if task not in concerned}
    checked = check_upload(folder, replace(upload, owned=owned))
    if not upload.extend:
        workspace.check(read_tasks(folder / SAMPLE))
        return checked.tasks
    tasks = tuple(dict.fromkeys(owners[label] for label in checked.labels if label in owners))
    if new is not None:
        if not pending:
            workspace.plan_mixed(MixedExamples(new.name, read_examples(folder / DATA)), into=new.into)
        return tuple(dict.fromkeys([*tasks, new.into or new.name]))
    if not pending and (unknown := [label for label in checked.labels if label not in owners]):
        problems = [Problem("the upload", None, f"label {label!r} is not known") for label in unknown]
        raise DataError("examples of unknown labels; learn a task with these labels first", problems)
    return tasks


def _owner(context: ServerContext, label: str) -> tuple[str, ...]:
    """Return the name of a label's task; nothing if a job that waits may still make it."""
    snapshot = context.opened().store.snapshot()
    if label not in snapshot.owners and context.jobs.unfinished():
        return ()
    return (owner_of(snapshot, label).name,)


def _check_known(context: ServerContext, wanted: JobRequest) -> None:
    """Refuse an unknown task or version at once, unless a job that waits may still make it."""
    if not context.jobs.unfinished() and wanted.kind is not JobKind.PROMOTE:  # which may make its tasks
        for task in wanted.tasks:
            record = context.opened().store.snapshot().task(task)
            if "version" in wanted.options:
                record.version(wanted.options["version"])
        if (number := wanted.options.get("generation")) is not None:
            _check_kept(context, number)


def _check_kept(context: ServerContext, number: int) -> None:
    kept = {one.number for one in context.opened().generations if not one.present}
    if number not in kept:
        raise UnknownNameError(f"generation {number} is not kept; GET /v1/generations lists those that are")
