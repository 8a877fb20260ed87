"""`GET /v1/tasks`, `/v1/labels`, `/v1/versions`: what the workspace has learned, as of the generation that answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from conpet.errors import UnknownNameError
from conpet.problem_details import ApiProblem
from conpet.serve.auth import requires
from conpet.serve.context import context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import LabelsResponse, TasksResponse, VersionsResponse
from conpet.store import Snapshot, TaskRecord

router = APIRouter(
    prefix="/v1",
    tags=["workspace"],
    dependencies=[requires(Role.PREDICT)],
    responses=documented(401, 403, 404, 422, 429),
)

TaskQuery = Annotated[str | None, Query(description="Name of a task, instead of all.")]


@router.get("/tasks", summary="The learned tasks")
async def tasks(request: Request) -> TasksResponse:
    """Return the learned tasks in their active versions."""
    snapshot = _snapshot(request)
    return TasksResponse.model_validate(
        {"generation": snapshot.generation, "tasks": [_task(record) for record in snapshot.tasks]}
    )


@router.get("/labels", summary="The labels")
async def labels(request: Request, task: TaskQuery = None) -> LabelsResponse:
    """Return the labels of all tasks, or of one."""
    snapshot = _snapshot(request)
    rows = [
        {"label": label, "task": record.name} for record in _chosen(snapshot, task) for label in record.active.labels
    ]
    return LabelsResponse.model_validate({"generation": snapshot.generation, "labels": rows})


@router.get("/versions", summary="The versions of the tasks")
async def versions(request: Request, task: TaskQuery = None) -> VersionsResponse:
    """Return the versions of all tasks, or of one; one version of a task is active."""
    snapshot = _snapshot(request)
    rows = [
        {
            "task": version.task,
            "version": version.number,
            "active": version.active,
            "labels": list(version.labels),
            "parameters": version.parameters,
            "head_parameters": version.head_parameters,
            "bytes": version.bytes,
            "created": version.created.isoformat(),
        }
        for record in _chosen(snapshot, task)
        for version in record.versions
    ]
    return VersionsResponse.model_validate({"generation": snapshot.generation, "versions": rows})


def _snapshot(request: Request) -> Snapshot:
    context = context_of(request)
    context.ready()
    return context.serving.live.snapshot


def _chosen(snapshot: Snapshot, task: str | None) -> tuple[TaskRecord, ...]:
    try:
        return snapshot.tasks if task is None else (snapshot.task(task),)
    except UnknownNameError:
        raise ApiProblem(404, "unknown-task", "there is no task of this name; GET /v1/tasks lists them") from None


def _task(record: TaskRecord) -> dict[str, Any]:
    version = record.active
    return {
        "name": record.name,
        "version": version.number,
        "labels": len(version.labels),
        "kind": version.description["kind"],
        "head": version.description["head"],
        "template": version.description["template"],
        "learned": version.created.isoformat(),
    }
