"""Changes over HTTP: each request is checked and becomes a job; jobs are followed, cancelled and listed.

The queue is on disk, so that it is always asked in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse

from conpet.commands.stored_rows import Wanted, inputs_of
from conpet.data import Example
from conpet.errors import UnknownNameError
from conpet.jobs.data import DATA, write_wanted
from conpet.jobs.records import JobEvent, JobEventKind, JobKind, JobRequest, JobState
from conpet.jobs.uploads import FORMATS, MEDIA_TYPES, RAW, UploadOptions
from conpet.problem_details import ApiProblem, too_busy
from conpet.serve.auth import Caller, requires
from conpet.serve.bodies import body_of, charset_of, json_body, media_type_of
from conpet.serve.context import ServerContext, context_of
from conpet.serve.job_schemas import (
    ActivateRequest,
    CandidatesResponse,
    ConsolidateRequest,
    DiscardResponse,
    ForgetRequest,
    GateReportFields,
    GenerationsResponse,
    JobFields,
    JobsResponse,
    LogResponse,
    PromoteRequest,
    RenameRequest,
    RestoreRequest,
    RetireRequest,
    SplitRequest,
)
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.submit import (
    Submitted,
    checked_upload,
    digest_of,
    former_job,
    submit,
    submit_change,
    submit_relabelling,
    submit_split,
    uploading,
)

REPLAYED = "Idempotent-Replayed"
"""Header of a response that repeats an earlier one."""
_ANY_FORMAT = ("application/octet-stream", "application/gzip")
"""Content types of uploads whose format is given in the query."""
_STREAMS = 200
"""Most clients of a process that follow jobs."""
_POLL_SECONDS = 0.25
_PING_SECONDS = 15.0
"""Seconds between comments in a stream in which nothing happens, so that proxies keep it open."""

router = APIRouter(prefix="/v1", tags=["jobs"])
learn_role, operate_role = requires(Role.LEARN), requires(Role.OPERATE)
Learner = Annotated[Caller, learn_role]
Operator = Annotated[Caller, operate_role]

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[ -~]*$",
        description="A key of your choice, for example a UUID: a second request with it returns the first job.",
    ),
]
UseGate = Annotated[
    bool, Query(alias="gate", description="`false` makes the change even if earlier answers get worse (role operate).")
]
Evaluate = Annotated[bool, Query(description="Whether to measure all tasks on their test examples afterwards.")]
Candidate = Annotated[int, InPath(ge=1, le=2**31, description="Number of a candidate.")]
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}}
}
"""The part of a route's description (`responses`) that describes an accepted job."""
_CHANGE_ERRORS = documented(401, 403, 404, 409, 422, 429, 507)
_READ_ERRORS = documented(401, 403, 404, 422, 429)

_EVENT = 'id: 41\nevent: state\ndata: {"time": "2026-03-02T09:30:09+00:00", "state": "succeeded"}\n\n'
_EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"enum": [str(kind) for kind in JobEventKind]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_ROWS = [{"text": "my card was swallowed", "label": "card_swallowed"}, {"text": "i lost my pin", "label": "pin_lost"}]
_LEARN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/TaskUpload"},
                        {"$ref": "#/components/schemas/StreamUpload"},
                    ]
                },
                "examples": {
                    "task": {"value": {"name": "cards", "rows": _ROWS}},
                    "tasks": {"value": {"tasks": [{"name": "cards", "train": _ROWS, "test": []}]}},
                },
            },
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": "".join(f"{json.dumps(row)}\n" for row in _ROWS),
            },
            "text/csv": {
                "schema": {"type": "string"},
                "example": "text,label\nmy card was swallowed,card_swallowed\ni lost my pin,pin_lost\n",
            },
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/learn",
    summary="Learn a task, or several",
    status_code=202,
    dependencies=[learn_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=_LEARN_BODY,
)
async def learn(
    request: Request,
    caller: Learner,
    name: Annotated[
        str | None, Query(description="Name of the task, for all formats but JSON.", examples=["cards"])
    ] = None,
    template: Annotated[str | None, Query(description="Its template, for all formats but JSON.")] = None,
    extend: Annotated[bool, Query(description="Learn more examples of known labels.")] = False,
    batch: Annotated[int, Query(ge=1, le=1000, description="Number of tasks to learn in each change.")] = 1,
    seed: Annotated[int | None, Query(ge=0, le=2**31, description="Seed for splitting off test sets.")] = None,
    all_rows: Annotated[bool, Query(description="Split off no validation and test sets.")] = False,
    needed_since: Annotated[
        date | None, Query(description="Day from which the new labels were needed; the delay is part of the costs.")
    ] = None,
    evaluate: Evaluate = True,
    use_gate: UseGate = True,
    form: Annotated[
        str | None, Query(alias="format", description=f"Instead of the content type: {', '.join(FORMATS)}.")
    ] = None,
    idempotency_key: Key = None,
) -> Response:
    """Check the data, and accept a job that learns it: the body is a file, or JSON with rows.

    All rows are checked before the job is accepted. Tasks already learned from the same data are skipped.
    """
    context = context_of(request)
    workspace = context.opened()
    chosen = _format(request, form)
    _check_options(chosen, extend=extend, name=name, template=template, seed=seed, all_rows=all_rows, batch=batch)
    if not use_gate and not caller.role.allows(Role.OPERATE):
        raise ApiProblem(403, "forbidden", "this key may not learn without the gate; use one to operate")
    options: dict[str, Any] = {"evaluate": evaluate, "gate": use_gate} | ({} if extend else {"batch": batch})
    options |= _need(needed_since)
    encoding = charset_of(request)
    read = {"name": name, "template": template, "seed": seed, "all_rows": all_rows, "format": chosen}
    read |= {} if encoding is None else {"encoding": encoding}
    kind = JobKind.EXTEND if extend else JobKind.LEARN
    async with uploading(context) as (job_id, folder):
        content = await _received(request, folder / f"{RAW}.{chosen}")
        digest = digest_of([kind, options, read, content])
        former = await former_job(context, caller, idempotency_key, digest)
        if former is not None:
            return accepted(former)
        upload = UploadOptions(
            chosen,
            extend=extend,
            name=name,
            template=template,
            seed=workspace.settings.seed if seed is None else seed,
            all_rows=all_rows,
            limit=context.settings.upload_bytes,
            encoding=encoding,
        )
        tasks = await checked_upload(context, folder, upload)
        wanted = JobRequest(kind, options, tasks)
        return accepted(await submit(request, caller, wanted, idempotency_key, digest, job_id))


@router.delete(
    "/tasks/{task:path}",
    summary="Remove a task",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
)
async def remove(
    request: Request,
    caller: Operator,
    task: str,
    evaluate: Evaluate = True,
    use_gate: UseGate = True,
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that removes a task with its labels, versions and stored examples."""
    wanted = JobRequest(JobKind.REMOVE, {"task": task, "evaluate": evaluate, "gate": use_gate}, (task,))
    return accepted(await submit_change(request, caller, wanted, idempotency_key))


@router.post(
    "/versions/{task:path}/activate",
    summary="Make a version of a task active",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(ActivateRequest, roll_back={"version": 1}),
)
async def activate(
    request: Request,
    caller: Operator,
    task: str,
    body: Annotated[ActivateRequest, json_body(ActivateRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that makes another version of a task active: a rollback, or the way back."""
    options = {"task": task, "version": body.version, "evaluate": body.evaluate, "gate": body.gate}
    return accepted(
        await submit_change(request, caller, JobRequest(JobKind.ACTIVATE, options, (task,)), idempotency_key)
    )


@router.post(
    "/consolidate",
    summary="Consolidate",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(
        ConsolidateRequest, default={}, with_a_bound={"bound": 0.5}, only_the_top_layers={"layers": "top"}
    ),
)
async def consolidate(
    request: Request,
    caller: Operator,
    body: Annotated[ConsolidateRequest, json_body(ConsolidateRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that trains on the stored examples of all tasks together."""
    options = body.model_dump(exclude_none=True)
    return accepted(await submit_change(request, caller, JobRequest(JobKind.CONSOLIDATE, options), idempotency_key))


@router.get(
    "/generations",
    summary="The generations that can be gone back to",
    dependencies=[learn_role],
    responses=_READ_ERRORS,
    response_model=GenerationsResponse,
)
async def generations(request: Request) -> Response:
    """Return the kept generations and the present one, oldest first."""
    workspace = context_of(request).opened()
    found = await asyncio.to_thread(lambda: workspace.generations)
    return _json({"generations": [one.to_json() for one in found]})


@router.post(
    "/generations/{number}/restore",
    summary="Go back to a kept generation",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(RestoreRequest, default={}),
)
async def restore(
    request: Request,
    caller: Operator,
    number: Annotated[int, InPath(ge=1, le=2**31, description="Number of a generation.")],
    body: Annotated[RestoreRequest, json_body(RestoreRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that makes a kept generation the present one; the present one is kept in turn."""
    wanted = JobRequest(JobKind.RESTORE, {"generation": number, "evaluate": body.evaluate, "gate": body.gate})
    return accepted(await submit_change(request, caller, wanted, idempotency_key))


@router.post(
    "/rename",
    summary="Rename a label",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(RenameRequest, a_label={"label": "pin_lost", "name": "pin_forgotten"}),
)
async def rename(
    request: Request,
    caller: Operator,
    body: Annotated[RenameRequest, json_body(RenameRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that renames a label, without training."""
    return accepted(await submit_relabelling(request, caller, JobKind.RENAME, body.model_dump(), idempotency_key))


@router.post(
    "/retire",
    summary="Retire a label",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(RetireRequest, a_label={"label": "pin_lost"}),
)
async def retire(
    request: Request,
    caller: Operator,
    body: Annotated[RetireRequest, json_body(RetireRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that removes a label with its examples and older versions of its task, without training."""
    return accepted(await submit_relabelling(request, caller, JobKind.RETIRE, body.model_dump(), idempotency_key))


@router.post(
    "/split",
    summary="Split a label into finer ones",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(
        SplitRequest,
        in_two={
            "label": "pin_lost",
            "rows": [
                {"text": "i lost my pin", "label": "pin_forgotten"},
                {"text": "someone saw my pin", "label": "pin_seen"},
            ],
        },
    ),
)
async def split(
    request: Request,
    caller: Operator,
    body: Annotated[SplitRequest, json_body(SplitRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that learns a task again with finer labels in place of one."""
    options = body.model_dump(exclude={"rows"})
    return accepted(await submit_split(request, caller, body.rows, options, idempotency_key))


@router.post(
    "/forget",
    summary="Forget rows, labels or tasks",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(ForgetRequest, a_text={"rows": ["my card was swallowed"], "reason": "request 17"}),
)
async def forget(
    request: Request,
    caller: Operator,
    body: Annotated[ForgetRequest, json_body(ForgetRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that forgets data and what was learned from it; its result has the receipt.

    What is to be forgotten is kept beside the job until it ends, and not part of its options.
    """
    context = context_of(request)
    context.opened()
    options = {name: getattr(body, name) for name in ("reason", "keep_modules", "drop_labels", "evaluate")}
    wanted = body.model_dump(exclude=set(options))
    digest = digest_of([JobKind.FORGET, options, wanted])
    if (former := await former_job(context, caller, idempotency_key, digest)) is not None:
        return accepted(former)
    rows = [row.to_json() for row in await asyncio.to_thread(_checked_wanted, wanted)]
    hashes = [value.lower() for value in body.hashes]
    async with uploading(context) as (job_id, folder):
        await asyncio.to_thread(write_wanted, folder / DATA, {**wanted, "rows": rows, "hashes": hashes})
        job = JobRequest(JobKind.FORGET, options, tuple(body.tasks))
        return accepted(await submit(request, caller, job, idempotency_key, digest, job_id))


def _checked_wanted(wanted: dict[str, Any]) -> tuple[Example, ...]:
    """Return the rows that are to be forgotten, after checking that they are rows and that something is named."""
    rows = inputs_of(wanted["rows"])
    days = wanted["older_than_days"]
    before = None if days is None else datetime.now(UTC).date() - timedelta(days=days)
    named = {name: tuple(wanted[name]) for name in ("ids", "hashes", "labels", "tasks")}
    Wanted(rows, **named, before=before)
    return rows


@router.post(
    "/candidates/{number}/promote",
    summary="Make a refused change",
    status_code=202,
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS | ACCEPTED,
    response_model=JobFields,
    openapi_extra=body_of(PromoteRequest, without_gate={"gate": False}),
)
async def promote(
    request: Request,
    caller: Operator,
    number: Candidate,
    body: Annotated[PromoteRequest, json_body(PromoteRequest)],
    idempotency_key: Key = None,
) -> Response:
    """Accept a job that makes a change that the gate refused; the workspace must not have changed since."""
    workspace = context_of(request).opened()
    report = await asyncio.to_thread(workspace.gate_report, number)
    wanted = JobRequest(JobKind.PROMOTE, {"candidate": number, "gate": body.gate}, report.tasks)
    return accepted(await submit_change(request, caller, wanted, idempotency_key))


@router.get(
    "/candidates",
    summary="The refused changes",
    dependencies=[learn_role],
    responses=_READ_ERRORS,
    response_model=CandidatesResponse,
)
async def candidates(request: Request) -> Response:
    """Return the changes that the gate refused, oldest first."""
    workspace = context_of(request).opened()
    records = await asyncio.to_thread(lambda: workspace.candidates)
    return _json({"candidates": [record.to_json() for record in records]})


@router.get(
    "/candidates/{number}",
    summary="What a refused change would do",
    dependencies=[learn_role],
    responses=_READ_ERRORS | documented(409),
    response_model=GateReportFields,
)
async def candidate(request: Request, number: Candidate) -> Response:
    """Return what a refused change would do to earlier answers, without the inputs."""
    workspace = context_of(request).opened()
    report = await asyncio.to_thread(workspace.gate_report, number)
    return _json(report.to_json())


@router.delete(
    "/candidates/{number}",
    summary="Discard a refused change",
    dependencies=[operate_role],
    responses=_CHANGE_ERRORS,
    response_model=DiscardResponse,
)
async def discard(request: Request, caller: Operator, number: Candidate) -> Response:
    """Delete a candidate."""
    workspace = context_of(request).opened()
    await asyncio.to_thread(partial(workspace.discard, number, wait_seconds=0.0, actor=caller.actor))
    return _json({"discarded": number})


@router.get("/jobs", summary="The jobs", dependencies=[learn_role], responses=_READ_ERRORS, response_model=JobsResponse)
async def jobs(
    request: Request,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    before: Annotated[str | None, Query(description="Only jobs older than this one, for further pages.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return jobs, newest first."""
    listed = await asyncio.to_thread(context_of(request).jobs.list, state=state, before=before, limit=limit)
    return _json({"jobs": [job.to_json() for job in listed]})


@router.get(
    "/jobs/{job_id}", summary="A job", dependencies=[learn_role], responses=_READ_ERRORS, response_model=JobFields
)
async def job(request: Request, job_id: str) -> Response:
    """Return a job with its progress, result or error."""
    found = await asyncio.to_thread(context_of(request).jobs.get, job_id)
    return _json(found.to_json())


@router.get(
    "/jobs/{job_id}/log",
    summary="The log of a job",
    dependencies=[learn_role],
    responses=_READ_ERRORS,
    response_model=LogResponse,
)
async def log(
    request: Request,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only lines after the one with this id.")] = 0,
) -> Response:
    """Return the log of a job, at most 1,000 lines at a time."""
    events = await asyncio.to_thread(context_of(request).jobs.events, job_id, after, kind=JobEventKind.LOG)
    lines = [{"id": one.id, "time": one.time.isoformat(), "message": one.data["message"]} for one in events]
    return _json({"lines": lines})


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    dependencies=[learn_role],
    responses=_READ_ERRORS
    | {
        200: {
            "description": "Server-sent events.",
            "content": {"text/event-stream": {"itemSchema": _EVENT_SCHEMA, "example": _EVENT}},
        }
    },
    response_class=StreamingResponse,
)
async def events(
    request: Request,
    job_id: str,
    last_event_id: Annotated[
        str, Header(alias="Last-Event-ID", pattern="^[0-9]{0,15}$", description="Id of the last event received.")
    ] = "",
) -> Response:
    """Send what happens to a job as server-sent events, until it ends.

    The events `state`, `progress` and `log` have JSON data. After a lost connection, go on with `Last-Event-ID`.
    """
    context = context_of(request)
    after = int(last_event_id or 0)
    await asyncio.to_thread(context.jobs.get, job_id)
    if context.followers >= _STREAMS:
        raise too_busy(429, "too-many-streams", "too many clients follow jobs; ask for the job instead", 5)
    headers = {"X-Accel-Buffering": "no"}  # nginx would hold the events back
    return StreamingResponse(_follow(context, job_id, after), media_type="text/event-stream", headers=headers)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    dependencies=[learn_role],
    responses=_READ_ERRORS,
    response_model=JobFields,
)
async def cancel(request: Request, caller: Learner, job_id: str) -> Response:
    """Cancel a job: one that waits at once, one that runs at its next step. Nothing is learned by halves.

    Keys without the role `operate` may cancel the jobs that they requested. An ended job does not change.
    """
    queue = context_of(request).jobs
    if not caller.role.allows(Role.OPERATE) and await asyncio.to_thread(queue.caller, job_id) != caller.id:
        raise ApiProblem(403, "forbidden", "this key may cancel only jobs that it requested; use one to operate")
    cancelled = await asyncio.to_thread(queue.cancel, job_id, by=caller.actor)
    return _json(cancelled.to_json())


async def _follow(context: ServerContext, job_id: str, after: int) -> AsyncIterator[str]:
    context.followers += 1
    try:
        sent = time.monotonic()
        yield ": events of a job\n\n"
        while not context.stopping:
            found = await asyncio.to_thread(context.jobs.events, job_id, after)
            for event in found:
                yield _sent(event)
                after, sent = event.id, time.monotonic()
                if event.ends:
                    return
            if not found:
                if (await asyncio.to_thread(context.jobs.state, job_id)).ended and not await asyncio.to_thread(
                    context.jobs.events, job_id, after
                ):
                    return
                if time.monotonic() - sent > _PING_SECONDS:
                    sent = time.monotonic()
                    yield ": nothing new\n\n"
                await asyncio.sleep(_POLL_SECONDS)
    except UnknownNameError:
        return  # an ended job was forgotten meanwhile
    finally:
        context.followers -= 1


def _sent(event: JobEvent) -> str:
    data = json.dumps({"time": event.time.isoformat(), **event.data})
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"


async def _received(request: Request, file: Path) -> str:
    """Write the body of a request to a file, and return its digest."""
    hasher = hashlib.sha256()
    with file.open("wb") as stream:
        async for chunk in request.stream():
            hasher.update(chunk)
            await asyncio.to_thread(stream.write, chunk)
    return hasher.hexdigest()


def _format(request: Request, given: str | None) -> str:
    """Return the format of an upload.

    Its content type must be one that a form of a web page cannot send: browsers would not ask before they send that.
    """
    if given is not None and given not in FORMATS:
        raise ApiProblem(422, "unknown-format", f"unknown format; use one of {', '.join(FORMATS)}")
    media_type = media_type_of(request)
    if media_type not in (MEDIA_TYPES if given is None else (*MEDIA_TYPES, *_ANY_FORMAT)):
        known = ", ".join(dict.fromkeys(MEDIA_TYPES))
        detail = f"unknown content type; use {known}, or {_ANY_FORMAT[0]} with ?format=..."
        raise ApiProblem(415, "unsupported-media-type", detail)
    return given or MEDIA_TYPES[media_type]


def _need(since: date | None) -> dict[str, str]:
    """Return the option that says since when labels were needed."""
    if since is None:
        return {}
    if since > datetime.now(UTC).date():
        raise ApiProblem(422, "invalid-options", "`needed_since` is a day that is not in the future")
    return {"needed_since": since.isoformat()}


def _check_options(form: str, *, extend: bool, batch: int, **task: Any) -> None:
    """Refuse options that would have no effect."""
    given = [name for name, value in {**task, "batch": batch != 1}.items() if value not in (None, False)]
    if extend and given:
        raise ApiProblem(
            422, "invalid-options", f"`extend` adds rows to the tasks of their labels: leave out {' and '.join(given)}"
        )
    if form == "json" and (task["name"] is not None or task["template"] is not None):
        raise ApiProblem(422, "invalid-options", "JSON names its tasks: put `name` and `template` into the body")
    if form != "json" and batch != 1:
        raise ApiProblem(422, "invalid-options", "batch is for several tasks, which only JSON can hold")


def accepted(submitted: Submitted) -> Response:
    """Return the response to a request that has become a job."""
    job = submitted.job
    headers = {"Location": f"/v1/jobs/{job.id}"} | ({REPLAYED: "true"} if submitted.replayed else {})
    return _json(job.to_json(), 202, headers)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, headers, "application/json")
