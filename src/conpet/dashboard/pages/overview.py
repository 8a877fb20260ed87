"""Is it well?"""

from __future__ import annotations

from typing import Annotated

from starlette.responses import Response

from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.visit import Visit, visits
from conpet.serve.keys import Role

router = page_router()
ENTRY = Entry(10, "/ui/overview", marked("Overview"))


@router.get("/overview")
async def overview(visit: Annotated[Visit, visits(Role.PREDICT)]) -> Response:
    """Show it."""
    visit.context.ready()
    return visit.render("overview.html")
