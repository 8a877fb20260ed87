"""The history of changes, and where an answer came from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from conpet.api import ConPET
from conpet.commands.audit import export as exported
from conpet.commands.prediction_log import trace_entry
from conpet.config.duration import moment_of
from conpet.dashboard.listing import PAGE, SearchText, newest
from conpet.dashboard.messages import marked
from conpet.dashboard.names import ACTIONS, DECISIONS, KINDS, VERBS, VERDICTS, actor_name
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import ROLE_NAMES, Visit, visits
from conpet.dashboard.waiting import being_computed, latest
from conpet.errors import ConfigError
from conpet.jobs.records import JobKind
from conpet.problem_details import ApiProblem
from conpet.review.records import VerdictKind
from conpet.serve.keys import Role
from conpet.store import Action
from conpet.store.prediction_log import PredictionLog
from conpet.types import Decision, LogEntry

router = page_router()
ENTRY = Entry(80, "/ui/audit", marked("Audit"), Role.OPERATE)
Operator = Annotated[Visit, visits(Role.OPERATE)]
Before = Annotated[int | None, Query(ge=1, le=2**53)]
TONES: dict[Decision, str] = {"answer": "good", "ask": "warn", "decline": "plain"}
"""Tones of the badges of decisions."""
PERIODS = {"": marked("any time"), "24h": marked("24 hours"), "7d": marked("7 days"), "30d": marked("30 days")}
_ANSWERS = 100
"""Most answers to a request or a text that are listed."""
_LINE = 120
"""Most characters of a value that is not divided into lines."""
_ROWS = 20
"""Most stored rows of a label that are named."""


@router.get("/audit")
async def history(visit: Operator, text: SearchText = "", before: Before = None) -> Response:
    """List the changes, the newest first."""
    store = visit.context.opened().store
    found = await asyncio.to_thread(store.history, before=before, limit=PAGE + 1, search=text)
    rows, last = newest(found)
    return visit.render(
        "audit.html",
        rows=rows,
        older=last and last.id,
        before=before,
        text=text,
        verbs=VERBS,
        by={row.actor: actor_name(visit.context.keys, row.actor) for row in rows},
    )


@router.get("/audit/actions")
async def actions(visit: Operator, text: SearchText = "", before: Before = None) -> Response:
    """List what people did beside the changes, the newest first."""
    visit.context.ready()
    entries = partial(visit.context.actions.entries, before=before, limit=PAGE + 1, search=text)
    found = await asyncio.to_thread(entries)
    rows, last = newest(found)
    return visit.render(
        "actions.html",
        rows=rows,
        older=last and last.id,
        before=before,
        text=text,
        actions=ACTIONS,
        about={row.id: _about(visit, row) for row in rows},
        by={row.actor: actor_name(visit.context.keys, row.actor) for row in rows},
    )


@router.get("/audit/changes/{number}")
async def change(visit: Operator, number: int) -> Response:
    """Show everything that is recorded of a change."""
    store = visit.context.opened().store
    found = await asyncio.to_thread(store.history, before=min(number, 2**53) + 1, limit=1)
    if not found or found[0].id != number:
        raise ApiProblem(404, "unknown-change", "there is no change of this number")
    (event,) = found
    by = actor_name(visit.context.keys, event.actor)
    return visit.render("change.html", event=event, verbs=VERBS, by=by, details=_details(event.detail))


@router.get("/audit/export")
async def export(visit: Operator) -> Response:
    """Return the history as a file that `conpet audit verify` checks."""
    workspace = visit.context.opened()
    name = f"history-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_lines(workspace), media_type="application/jsonl", headers=headers)


@router.get("/audit/verify")
async def verify(visit: Operator, since: Annotated[str | None, Query(max_length=40)] = None) -> Response:
    """Show whether history, content and record are what was recorded."""
    context = visit.context
    context.ready()
    if since is None:
        return visit.render("verify.html", found=None, recorded=context.recorder.predictions.exists)
    try:
        started = moment_of(since, "since")
    except ConfigError:
        raise ApiProblem(422, "invalid-form", "`since` is no time") from None
    found = await latest(context.verification, started)
    if found is None:
        said = visit.gettext("Every change, every stored file and every recorded prediction is being checked.")
        return being_computed(visit, visit.gettext("Being verified"), said)
    return visit.render("verify.html", found=found, recorded=context.recorder.predictions.exists)


@router.post("/audit/verify")
async def begin_to_verify(visit: Operator) -> Response:
    """Begin to verify."""
    return visit.redirect(link("audit/verify", since=datetime.now(UTC).isoformat()))


@router.get("/audit/predictions")
async def predictions(
    visit: Operator,
    decision: Decision | Literal[""] = "",
    task: Annotated[str, Query(max_length=500)] = "",
    label: Annotated[str, Query(max_length=500)] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    before: Before = None,
) -> Response:
    """List recorded predictions, the newest first."""
    context = visit.context
    record, mode = context.recorder.predictions, await asyncio.to_thread(context.recording)
    try:
        moment = moment_of(since, "since") if since else None
    except ConfigError:
        raise ApiProblem(422, "invalid-form", "`since` is no time") from None
    found = await asyncio.to_thread(
        record.entries,
        task=task or None,
        label=label or None,
        decision=decision or None,
        since=moment,
        before=before,
        limit=PAGE + 1,
    )
    rows, last = newest(found)
    chosen = {"decision": decision or None, "task": task or None, "label": label or None, "since": since or None}
    return visit.render(
        "predictions.html",
        rows=rows,
        older=last and last.id,
        before=before,
        chosen=chosen,
        periods=PERIODS | ({since: since} if since not in PERIODS else {}),
        decisions=DECISIONS,
        tones=TONES,
        mode=mode,
        exists=record.exists,
    )


@router.get("/audit/predictions/{number}")
async def prediction(visit: Operator, number: int) -> Response:
    """Show where an answer came from."""
    record = visit.context.record()
    traced = await asyncio.to_thread(trace_entry, visit.context.opened().store, record, min(number, 2**53))
    made = _made(traced)
    return visit.render(
        "prediction.html",
        entry=traced | {"time": datetime.fromisoformat(traced["time"])},
        made=made,
        made_by=actor_name(visit.context.keys, made["actor"]) if made else "",
        learned_from=traced["learned_from"][:_ROWS],
        more=max(0, len(traced["learned_from"]) - _ROWS),
        decisions=DECISIONS,
        tones=TONES,
    )


@router.post("/audit/find")
async def find(visit: Operator) -> Response:
    """Find the answers to a text, or to a request, whichever is given; a text is not put into an address."""
    wanted = visit.form.get("wanted")
    record = visit.context.record()
    rows = await asyncio.to_thread(_found, record, wanted) if wanted else []
    return visit.render("found.html", rows=rows, wanted=wanted, decisions=DECISIONS, tones=TONES)


def _found(record: PredictionLog, wanted: str) -> list[LogEntry]:
    of_request = record.entries(request=wanted, limit=_ANSWERS)
    return of_request or record.entries(input_hash=record.hash_of(wanted), limit=_ANSWERS)


def _made(traced: dict[str, Any]) -> dict[str, Any] | None:
    """Return who made the version that answered, and when."""
    version = traced["answered_by"]
    if version is None:
        return None
    return {**version["made"], "time": datetime.fromisoformat(version["made"]["time"]), "data": version["data"]}


def _lines(workspace: ConPET) -> Iterator[str]:
    for line in exported(workspace.store, workspace.prediction_log):
        yield f"{line}\n"


def _about(visit: Visit, action: Action) -> str:
    """Return what an action was about, in words."""
    detail = action.detail
    if "key" in detail:
        return f"{detail['name'] or detail['key']} · {visit.gettext(ROLE_NAMES[Role(detail['role'])])}"
    if "job" in detail:
        kind = visit.gettext(KINDS[JobKind(detail["kind"])])
        return f"{kind}: {', '.join(detail['tasks'])}" if detail["tasks"] else kind
    if detail.get("change") and detail["tasks"]:
        return f"{visit.gettext(VERBS.get(detail['change'], detail['change']))}: {', '.join(detail['tasks'])}"
    if "verdict" in detail:
        said = visit.gettext(VERDICTS[VerdictKind(detail["verdict"])])
        return visit.gettext("item %(number)s: %(verdict)s", number=detail["item"], verdict=said)
    if "item" in detail:
        return visit.gettext("item %(number)s", number=detail["item"])
    if "items" in detail:
        return visit.ngettext("%(num)s item", "%(num)s items", detail["items"])
    if number := detail.get("candidate") or detail.get("generation"):
        return visit.gettext("number %(number)s", number=number)
    return ""


def _details(detail: Any) -> list[tuple[str, str]]:
    """Return what is recorded beside the usual fields, each value as text."""
    return [(name, value if isinstance(value, str) else _written(value)) for name, value in dict(detail).items()]


def _written(value: Any) -> str:
    """Return a value as JSON, in lines if it is long."""
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= _LINE else json.dumps(value, ensure_ascii=False, indent=1)
