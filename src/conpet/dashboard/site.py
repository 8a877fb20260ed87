"""The pages of a server: mounted beside its API."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from conpet.dashboard import pages
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import ROOT, Entry, page_router
from conpet.dashboard.session import Session, session_of
from conpet.dashboard.templating import assets
from conpet.dashboard.visit import Visit
from conpet.problem_details import ApiProblem
from conpet.serve.problems import SERVER_ERROR

SIGN_IN = f"{ROOT}/sign-in"
_TITLES = {
    401: marked("Please sign in"),
    403: marked("Not allowed"),
    404: marked("Page not found"),
    405: marked("Page not found"),
    409: marked("Not possible at the moment"),
    413: marked("Too large"),
    429: marked("Too many requests"),
    503: marked("Not ready"),
    507: marked("The disk is full"),
}
"""Titles of error pages by status."""
_ADVICE = {
    "no-such-page": marked("There is no page at this address. Use the navigation to find what you are looking for."),
    "stale-form": marked("The form was opened before you signed in, or too long ago. Reload the page and try again."),
    "forbidden": marked(
        "Your key has a role that does not allow this. Ask an administrator for a key with more rights."
    ),
    "not-ready": marked("The server is loading the workspace. This page reloads automatically."),
    "stopping": marked("The server is stopping. This page reloads automatically until it is back."),
    "rate-limited": marked("Your key has used up its rate. Wait a moment and try again."),
    "no-record": marked(
        "No predictions are recorded. Start the server with --log-predictions hash, or text, to record them."
    ),
    "nothing-recorded": marked("No answer was recorded so far. Answers are recorded from now on."),
    "no-rows": marked("No row is left to learn. Go back, and leave fewer rows out."),
    "workspace-busy": marked("Another change of the workspace is under way. Try again when it has ended."),
    "internal-error": marked(
        "An unexpected error occurred. The log of the server has the details under the number below."
    ),
}
"""What to do, by kind of problem; without an entry, the page shows the message of the API."""
_RELOAD_SECONDS = 3


class Site:
    """The pages of a server; the `Pages` of its context.

    Attributes:
        routers: The routers of all pages.
        entries: The entries of the navigation, in their order.
        uploads: Addresses of forms whose file may be as large as an upload.
    """

    def __init__(self) -> None:
        modules = [import_module(f"{pages.__name__}.{found.name}") for found in iter_modules(pages.__path__)]
        self.routers: Sequence[APIRouter] = [_entrance(), *_named(modules, "router"), _nowhere()]
        self.entries: Sequence[Entry] = sorted(_named(modules, "ENTRY"), key=lambda entry: entry.order)
        self.uploads: tuple[str, ...] = tuple(path for paths in _named(modules, "UPLOADS") for path in paths)

    def mount(self, app: FastAPI) -> None:
        """Add the pages to an application."""
        app.state.context.pages = self
        for router in self.routers:
            app.include_router(router)

    def covers(self, path: str) -> bool:
        """Return whether an address belongs to the pages."""
        return path == ROOT or path.startswith(f"{ROOT}/")

    def error(self, request: Request, problem: ApiProblem) -> Response:
        """Return the page of a problem; whoever must sign in is sent to do so."""
        try:
            session = session_of(request)
        except (ApiProblem, OSError):  # what went wrong may be just that
            session = Session(None, "", "")
        visit = Visit(request, session)
        if problem.status == 401:
            return self._to_sign_in(visit)
        title = _TITLES.get(problem.status) or (
            marked("Something went wrong") if problem.status >= SERVER_ERROR else marked("This cannot be done")
        )
        advice = _ADVICE.get(problem.kind)
        page = visit.render(
            "error.html",
            problem.status,
            title=visit.gettext(title),
            advice=visit.gettext(advice) if advice else "",
            problem=problem,
        )
        page.headers.update(problem.headers)
        if problem.kind in ("not-ready", "stopping") and request.method == "GET":
            page.headers["Refresh"] = str(_RELOAD_SECONDS)
        return page

    def _to_sign_in(self, visit: Visit) -> Response:
        """Return a page that leads to the form to sign in.

        It is no redirect: after a link on another site, the browser sends the cookie of the session only with requests
        that one of our own pages makes.
        """
        address = f"{SIGN_IN}?next={quote(visit.here, safe='')}"
        if visit.partial:
            return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
        return visit.render("to_sign_in.html", 401, address=address)


def _named(modules: Sequence[ModuleType], name: str) -> list[Any]:
    """Return what modules have under a name, where they have it."""
    return [getattr(module, name) for module in modules if hasattr(module, name)]


def _entrance() -> APIRouter:
    """Return the routes that lead to the first page, and to the files of all pages."""
    router = page_router()
    first = page_router("")

    @first.get("/")
    async def to_pages(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        return RedirectResponse(f"{ROOT}/", 303)

    @router.get("")
    @router.get("/")
    async def to_first(request: Request) -> Response:
        entries: Sequence[Entry] = request.app.state.context.pages.entries
        return RedirectResponse(entries[0].path, 303)

    @router.get("/static/{name}")
    async def static(request: Request, name: str, v: str = "") -> Response:
        found = assets().get(name)
        if found is None:
            raise HTTPException(404)
        lasting = "public, max-age=31536000, immutable" if v == found.digest else "no-cache"
        return Response(found.content, media_type=found.media_type, headers={"Cache-Control": lasting})

    first.include_router(router)
    return first


def _nowhere() -> APIRouter:
    """Return the route of addresses without a page; it comes after all others."""
    router = page_router()

    @router.get("/{path:path}")
    async def nowhere(path: str) -> Response:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")

    return router
