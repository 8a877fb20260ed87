"""What the workspace and the server are set to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from starlette.responses import Response

from conpet.config import Settings
from conpet.config.describe import SettingRow, describe_settings, shown
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.setting_meanings import SECTIONS, SERVER, WORKSPACE
from conpet.dashboard.visit import Visit, visits
from conpet.serve.keys import Role
from conpet.serve.settings import ServeSettings

router = page_router()
ENTRY = Entry(100, "/ui/settings", marked("Settings"), Role.OPERATE)
CHANGED_BY = {
    "log": marked("Changed with “conpet audit log”, at any time."),
    "prices": marked("Changed with “conpet costs set”, at any time."),
    "refusal": marked("Changed with “conpet costs set”, at any time."),
}
"""Sections that can be changed later, and how."""
FIXED = marked("Set when the workspace was made. A better design can be searched for with “conpet tune”.")
_SECRET = frozenset({"watch_webhook"})
"""Settings of the server that may hold a password."""


@dataclass(frozen=True, slots=True)
class Row:
    """A setting.

    Attributes:
        name: Its name.
        value: What it is set to, as text; "" for nothing.
        default: Whether that is the default.
        meaning: What it means.
        foreign: Whether the meaning is in English, because another package has made it.
    """

    name: str
    value: str
    default: bool
    meaning: str
    foreign: bool = False


@router.get("/settings")
async def settings(visit: Annotated[Visit, visits(Role.OPERATE)]) -> Response:
    """Show all settings."""
    store = visit.context.opened().store
    header = await asyncio.to_thread(store.header)
    stored = Settings.parse(header.settings)
    described = await asyncio.to_thread(_descriptions)
    sections = [
        (visit.gettext(title), visit.gettext(CHANGED_BY.get(name, FIXED)), rows)
        for name, title in SECTIONS.items()
        if (rows := list(_workspace_rows(visit, described, name, stored.to_json()[name])))
    ]
    return visit.render(
        "settings.html", sections=sections, server=_server_rows(visit, visit.context.settings), header=header
    )


@cache
def _descriptions() -> dict[str, SettingRow]:
    """Return the settings of all components, also of other packages, by name."""
    return {row.name: row for row in describe_settings()}


def _workspace_rows(visit: Visit, described: Mapping[str, SettingRow], name: str, value: Any) -> Iterator[Row]:
    """Yield the settings of a section, or of a part of one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _workspace_rows(visit, described, f"{name}.{key}", inner)
        return
    known = WORKSPACE.get(name)
    row = described.get(name)
    default = row is not None and row.default == shown(value)
    meaning = visit.gettext(known) if known else row.meaning if row else ""
    yield Row(name, _shown(visit, value), default, meaning, foreign=known is None)


def _server_rows(visit: Visit, settings: ServeSettings) -> list[Row]:
    rows = []
    for name, meaning in SERVER.items():
        value, field = getattr(settings, name), ServeSettings.model_fields[name]
        hidden = name in _SECRET and value is not None
        shown = visit.gettext("set; not shown here") if hidden else _shown(visit, value)
        default = not field.is_required() and value == field.get_default(call_default_factory=True)
        rows.append(Row(name, shown, default, visit.gettext(meaning)))
    return rows


def _shown(visit: Visit, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return visit.gettext("yes") if value else visit.gettext("no")
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
