"""Who calls, and whether they may: API keys, roles, rate limits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from conpet.errors import did_you_mean
from conpet.jobs.records import actor_of
from conpet.problem_details import SHOWN, ApiProblem, too_busy
from conpet.serve.context import ServerContext, context_of
from conpet.serve.keys import KeyRecord, Role

BEARER = HTTPBearer(auto_error=False, description="A key made with `conpet keys create`; none is needed without keys.")
SECURED: dict[str, Any] = {"security": [{BEARER.scheme_name: []}]}
"""The part of a route's description (`openapi_extra`) that says that it needs a key, where no dependency does."""
LONGEST = 200
"""Longest token that is looked at, in characters."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        id: The id of its key; without keys, its address.
        role: What it may do.
    """

    id: str
    role: Role

    @property
    def actor(self) -> str:
        """Its name in the history and the trail of actions."""
        return actor_of(self.id) or self.id


def requires(role: Role) -> Any:
    """Return a dependency that admits callers with a role, within their rate; its value is the `Caller`."""

    async def admitted(request: Request, _: Annotated[object, Depends(BEARER)]) -> Caller:
        return await admit(request, role)

    return Depends(admitted)


async def admit(request: Request, role: Role) -> Caller:
    """Return the caller of a request.

    Raises:
        ApiProblem: The caller does not have the role, or is not within its rate; or the address has a parameter that
            would have no effect.
    """
    context = context_of(request)
    caller = await _caller(request, context)
    check(request, caller, role)
    _check_parameters(request)
    return caller


def check(request: Request, caller: Caller, role: Role) -> None:
    """Check that a caller has a role and is within its rate; the log names it from now on.

    Raises:
        ApiProblem: It has not, or is not.
    """
    context = context_of(request)
    request.state.caller = caller.id
    if not caller.role.allows(role):
        raise ApiProblem(403, "forbidden", f"this needs a key of the role {role}; this key has {caller.role}")
    if context.rates is not None and (seconds := context.rates.take(caller.id)):
        raise too_busy(429, "rate-limited", "too many requests with this key; try again later", seconds)


def _check_parameters(request: Request) -> None:
    """Refuse parameters of the address that the route does not have, for example misspelt ones.

    Those who ask for metrics may add some of their own.
    """
    if not request.scope["query_string"] or not request.scope["path"].startswith("/v1/"):
        return
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    errors = [
        {"pointer": f"/{name}", "detail": f"unknown parameter{did_you_mean(name, known)}"}
        for name in request.query_params
        if name not in known
    ]
    if errors:
        takes = ", ".join(known) or "none"
        raise ApiProblem(
            422, "unknown-parameter", f"the address has unknown parameters; it takes {takes}", errors=errors[:SHOWN]
        )


async def _caller(request: Request, context: ServerContext) -> Caller:
    if not context.keys.required:
        return Caller(address_of(request), Role.OPERATE)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST:
        raise _unauthorised("this server needs a key: send it as `Authorization: Bearer KEY`")
    return used(await verified(request, token), context)


def address_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else "unknown"


def used(record: KeyRecord, context: ServerContext) -> Caller:
    """Return the caller with a key, and note that the key is used."""
    if context.keys.is_due(record.id):  # in a thread, because another process may hold the file
        asyncio.get_running_loop().run_in_executor(None, context.keys.note_use, record.id)
    return Caller(record.id, record.role)


async def verified(request: Request, token: str) -> KeyRecord:
    """Return the key of a token.

    Raises:
        ApiProblem: There is none or it was revoked, or too many wrong ones came from the address.
    """
    context, address = context_of(request), address_of(request)
    if record := context.keys.cached(token):
        return record
    async with context.verifying:  # hashing takes time and memory, so that many guesses at once must wait
        if seconds := context.failures.exhausted(address):
            raise too_busy(429, "too-many-failures", "too many wrong keys from this address; try again later", seconds)
        record = await asyncio.to_thread(context.keys.verify, token)
        if record is None:
            context.failures.take(address)
            if not context.refusals.take(""):  # guesses must not fill the disk
                with suppress(OSError):
                    await asyncio.to_thread(context.actions.append, f"address {address}", "key-refused")
            raise _unauthorised("this key is unknown or was revoked")
        return record


def _unauthorised(detail: str) -> ApiProblem:
    return ApiProblem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
