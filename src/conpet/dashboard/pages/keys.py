"""API keys: who may use the server, and what they may do."""

from __future__ import annotations

import asyncio
from typing import Annotated

from starlette.responses import Response

from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.pages.changes import ONCE, once
from conpet.dashboard.visit import Visit, visits
from conpet.errors import UnknownNameError
from conpet.problem_details import ApiProblem
from conpet.serve.keys import NAME_LENGTH, KeyRecord, Role

router = page_router()
ENTRY = Entry(110, "/ui/keys", marked("Keys"), Role.OPERATE)
Operator = Annotated[Visit, visits(Role.OPERATE)]
ROLES = {
    Role.PREDICT: marked("ask, and read the lists of tasks and labels: for applications"),
    Role.LEARN: marked("also teach new tasks, label and see stored examples: for experts"),
    Role.OPERATE: marked("also roll back, remove, forget, and manage keys: for operators"),
}
"""What the holder of a key may do."""
_ID_CHARACTERS = 12


@router.get("/keys")
async def keys(visit: Operator) -> Response:
    """List the keys."""
    return await _page(visit)


@router.post("/keys")
async def make(visit: Operator) -> Response:
    """Make a key, and show it this once."""
    store, name, role = visit.context.keys, visit.form.get("name"), visit.form.get("role")
    first = not await asyncio.to_thread(store.list)
    if role not in list(Role):
        return await _page(visit, visit.gettext("Choose what the key may be used for."), 422)
    if first and role != Role.OPERATE:
        return await _page(
            visit, visit.gettext("The first key must be one for operators, or nobody could manage the others."), 422
        )
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        said = visit.gettext("A name has 1 to %(n)s printable characters.", n=NAME_LENGTH)
        return await _page(visit, said, 422)
    key_id = visit.session.mac(f"key {visit.form[ONCE]}")[:_ID_CHARACTERS]
    if any(one.id == key_id for one in await asyncio.to_thread(store.list)):  # the page was reloaded
        told = visit.gettext(
            "The key “%(name)s” was made already and shown once. If you did not copy it, revoke it and make another.",
            name=name,
        )
        return visit.redirect("/ui/keys", told)
    key, record = await asyncio.to_thread(store.create, Role(role), name, by=visit.caller.actor, key_id=key_id)
    page = visit.render("key_made.html", key=key, record=record, first=first, roles=ROLES)
    page.headers["Cache-Control"] = "no-store"
    return page


@router.get("/keys/{key_id}/revoke")
async def ask_to_revoke(visit: Operator, key_id: str) -> Response:
    """Say what revoking a key does."""
    usable = [key for key in await asyncio.to_thread(visit.context.keys.list) if key.revoked is None]
    key = _found(usable, key_id)
    effects = [
        visit.gettext("Whoever uses the key “%(name)s” is refused from now on.", name=key.name or key.id),
        visit.gettext("This cannot be undone; you can make a new key at any time."),
    ]
    if key.id == visit.caller.id:
        effects.append(visit.gettext("You are signed in with this key, and will be signed out."))
    if key.role is Role.OPERATE and sum(one.role is Role.OPERATE for one in usable) == 1:
        effects.append(
            visit.gettext(
                "This is the last key for operators. Without one, only someone with access to the machine can make "
                "keys (conpet keys create)."
            )
        )
    return visit.confirm(
        title=visit.gettext("Revoke this key?"),
        effects=effects,
        action=f"/ui/keys/{key.id}/revoke",
        fields={},
        button=visit.gettext("Revoke the key"),
        back="/ui/keys",
        danger=True,
    )


@router.post("/keys/{key_id}/revoke")
async def revoke(visit: Operator, key_id: str) -> Response:
    """Revoke a key."""
    try:
        key = await asyncio.to_thread(visit.context.keys.revoke, key_id, by=visit.caller.actor)
    except UnknownNameError:
        raise _unknown() from None
    return visit.redirect("/ui/keys", visit.gettext("The key “%(name)s” is revoked.", name=key.name or key.id))


async def _page(visit: Visit, problem: str = "", status: int = 200) -> Response:
    rows = await asyncio.to_thread(visit.context.keys.list)
    return visit.render(
        "keys.html",
        status,
        rows=rows[::-1],
        roles=ROLES,
        problem=problem,
        name=visit.form.get("name"),
        longest=NAME_LENGTH,
        once=once(),
    )


def _found(keys: list[KeyRecord], key_id: str) -> KeyRecord:
    for key in keys:
        if key.id == key_id:
            return key
    raise _unknown()


def _unknown() -> ApiProblem:
    return ApiProblem(404, "unknown-key", "there is no such key, or it is revoked already")
