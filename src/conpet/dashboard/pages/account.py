"""Sign in with a key, sign out, choose a language."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Query
from starlette.responses import RedirectResponse, Response

from conpet.dashboard.navigation import ROOT, page_router
from conpet.dashboard.session import sign_in, sign_out
from conpet.dashboard.visit import Visit, visits
from conpet.jobs.records import KEY
from conpet.problem_details import ApiProblem
from conpet.serve.auth import LONGEST, verified

router = page_router()
Anybody = Annotated[Visit, visits(None)]
Next = Annotated[str, Query(alias="next")]


@router.get("/sign-in")
async def form_to_sign_in(visit: Anybody, address: Next = "") -> Response:
    """Show the form to sign in, or go on if that was done."""
    if visit.session.caller is not None:
        return visit.redirect(_safe(address))
    return visit.render("sign_in.html", address=_safe(address), problem="")


@router.post("/sign-in")
async def signed_in(visit: Anybody) -> Response:
    """Sign in with an API key."""
    address, key = _safe(visit.form.get("next")), visit.form.get("key")[:LONGEST]
    if not visit.context.keys.required:
        return visit.redirect(address)
    try:
        record = await verified(visit.request, key)
    except ApiProblem as problem:
        wrong = visit.gettext("This key is unknown or was revoked. Keys begin with “conpet_”.")
        many = visit.gettext("Too many wrong keys came from your address. Try again later.")
        said = many if problem.status == 429 else wrong
        page = visit.render("sign_in.html", problem.status, address=address, problem=said)
        page.headers.update(problem.headers)
        return page
    await asyncio.to_thread(visit.context.actions.append, f"{KEY}{record.id}", "signed-in")
    response = RedirectResponse(address, 303)
    sign_in(visit.request, response, record)
    return response


@router.post("/sign-out")
async def signed_out(visit: Anybody) -> Response:
    """Sign out."""
    response = RedirectResponse(f"{ROOT}/sign-in", 303)
    sign_out(visit.request, response)
    return response


@router.post("/language")
async def language(visit: Anybody) -> Response:
    """Show all pages in another language from now on."""
    response = visit.redirect(_safe(visit.form.get("next")))
    visit.prefer(response, visit.form["language"])
    return response


def _safe(address: str) -> str:
    """Return an address to go to: a page of ours, whatever was asked for."""
    ours = address.startswith(f"{ROOT}/") and "\\" not in address and address.isprintable()
    return address if ours else f"{ROOT}/"
