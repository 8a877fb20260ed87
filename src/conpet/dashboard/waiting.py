"""Pages that show what takes long to compute."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TypeVar

from starlette.responses import Response

from conpet.dashboard.visit import Visit
from conpet.serve.background import Background, Computed

Value = TypeVar("Value")
WAIT_SECONDS = 0.1
"""How long a page waits for a value that is not there yet."""


async def latest(background: Background[Value], since: datetime | None = None) -> Computed[Value] | None:
    """Return the last value, or None if it is being computed; arguments as in `Background.latest`."""
    return await asyncio.to_thread(background.latest, WAIT_SECONDS, since)


def being_computed(visit: Visit, title: str, said: str) -> Response:
    """Return a page that says what is being computed, and reloads automatically."""
    return visit.render("waiting.html", title=title, said=said)
