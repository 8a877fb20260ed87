"""What a page adds to the dashboard: its addresses, and its entry in the navigation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from fastapi.types import DecoratedCallable

from conpet.serve.keys import Role

ROOT = "/ui"
"""Address below which all pages are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry in the navigation.

    Attributes:
        order: Its place: entries are sorted by it.
        path: The address of its page; the entry is marked as present on all pages below it.
        title: Its text, marked for translation.
        role: The role that its page needs; others do not see it.
    """

    order: int
    path: str
    title: str
    role: Role = Role.PREDICT

    def covers(self, path: str) -> bool:
        """Return whether a page belongs to the entry."""
        return path == self.path or path.startswith(f"{self.path}/")


class PageRouter(APIRouter):
    """A router whose pages also answer HEAD: as GET, without the body, which the server leaves out."""

    def get(self, path: str, **options: Any) -> Callable[[DecoratedCallable], DecoratedCallable]:
        """Return a decorator for a page."""
        return self.api_route(path, methods=["GET", "HEAD"], **options)


def page_router(prefix: str = ROOT) -> PageRouter:
    """Return the router of a page: its paths begin below `ROOT`, and are no part of the description of the API."""
    return PageRouter(prefix=prefix, include_in_schema=False, default_response_class=HTMLResponse)
