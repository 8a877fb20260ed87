"""The changes that were requested: waiting, running and done."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from conpet.dashboard.listing import PAGE, newest
from conpet.dashboard.messages import marked
from conpet.dashboard.names import KINDS, STATES, about_job, state_of
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.visit import Visit, visits
from conpet.jobs.records import JobState
from conpet.serve.keys import Role

router = page_router()
ENTRY = Entry(70, "/ui/jobs", marked("Jobs"), Role.LEARN)


@router.get("/jobs")
async def jobs(
    visit: Annotated[Visit, visits(Role.LEARN)],
    state: JobState | None = None,
    before: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """List the jobs, newest first."""
    found = await asyncio.to_thread(visit.context.jobs.list, state=state, before=before, limit=PAGE + 1)
    counts = await asyncio.to_thread(visit.context.jobs.counts)
    rows, last = newest(found)
    return visit.render(
        "jobs.html",
        rows=rows,
        older=last and last.id,
        state=state,
        before=before,
        counts=counts,
        total=sum(counts.values()),
        busy=any(not row.state.ended for row in rows),
        states=STATES,
        state_of=state_of,
        about={row.id: about_job(visit, row) for row in rows},
        kinds=KINDS,
    )
