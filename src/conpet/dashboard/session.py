"""Who is signed in: a signed cookie, the header of a proxy, or anybody where no keys are needed."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import Response

from conpet.jobs.records import USER
from conpet.problem_details import ApiProblem
from conpet.serve.auth import Caller, address_of, used
from conpet.serve.context import ServerContext, context_of
from conpet.serve.keys import KeyRecord, Role

TOKEN, TOKEN_HEADER = "csrf", "X-CSRF-Token"
"""Field of a form, and header of a request, with the token that only our own pages can send."""
_SESSION, _VISIT = "conpet_session", "conpet_visit"
_PURPOSE = "conpet dashboard session"
_PARTS = 4
_USER_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Session:
    """Who looks at a page.

    Attributes:
        caller: The caller as the API knows it; None if nobody is signed in and somebody must be.
        name: Name for people, or "".
        secret: Value of the cookie that the browser has, or gets: what forms are bound to.
        new: Whether the browser has to be given the cookie.
        leaves: Whether one can sign out.
    """

    caller: Caller | None
    name: str
    secret: str
    new: bool = False
    leaves: bool = False

    @property
    def token(self) -> str:
        """The token that forms of this session carry."""
        return _mac(self.secret, "form")

    def mac(self, text: str) -> str:
        """Return hexadecimal digits that only this session gives for a text."""
        return _mac(self.secret, text)

    def sign(self, text: str) -> str:
        """Return a text with a signature that is good in this session only."""
        return f"{_mac(self.secret, text)}.{text}"

    def signed(self, value: str) -> str | None:
        """Return a text that `sign` has signed in this session, or None."""
        mac, _, text = value.partition(".")
        return text if hmac.compare_digest(mac.encode(), _mac(self.secret, text).encode()) else None


def session_of(request: Request) -> Session:
    """Return the session of a request.

    Raises:
        ApiProblem: The proxy names an unknown role.
    """
    context = context_of(request)
    visit = request.cookies.get(_name(_VISIT, request), "")
    new, secret = not visit, visit or secrets.token_urlsafe(24)
    settings = context.settings
    if settings.proxy_header is not None and (caller := _named_by_proxy(request, context)) is not None:
        return Session(caller, caller.id.removeprefix(USER), secret, new)
    if not context.keys.required:
        # Where a proxy signs users in, nobody else may come in.
        caller = None if settings.proxy_header is not None else Caller(address_of(request), Role.OPERATE)
        return Session(caller, "", secret, new)
    cookie = request.cookies.get(_name(_SESSION, request), "")
    record = _record(cookie, context)
    if record is None:
        return Session(None, "", secret, new)
    return Session(used(record, context), record.name or record.id, cookie, leaves=True)


def sign_in(request: Request, response: Response, record: KeyRecord) -> None:
    """Give the browser a cookie of a session for a key."""
    context = context_of(request)
    seconds = round(3600 * context.settings.session_hours)
    content = f"{record.id}.{round(time.time()) + seconds}.{secrets.token_urlsafe(18)}"
    signature = context.keys.mac(record.id, f"{_PURPOSE} {content}")
    _set_cookie(request, response, _SESSION, f"{content}.{signature}", strict=True, seconds=seconds)


def sign_out(request: Request, response: Response) -> None:
    """Take the cookie of the session back."""
    response.delete_cookie(_name(_SESSION, request), path="/", httponly=True, samesite="strict")


def remember(request: Request, response: Response, session: Session) -> None:
    """Give the browser the cookie that its forms are bound to, if it has none."""
    if session.new:  # sent along from links of other pages, or they would make the forms of open pages worthless
        _set_cookie(request, response, _VISIT, session.secret, strict=False)


def set_preference(request: Request, response: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Keep something in the browser that is no secret."""
    _set_cookie(request, response, name, value, strict=True, seconds=seconds)


def preference(request: Request, name: str) -> str | None:
    """Return what `set_preference` kept, or None."""
    return request.cookies.get(_name(name, request))


def check_origin(request: Request) -> None:
    """Check that a request that changes something comes from one of our own pages.

    Raises:
        ApiProblem: It does not, or its browser does not say.
    """
    origin = request.headers.get("origin", "")
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise _foreign()
    if not origin or urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise _foreign()


def check_token(session: Session, given: str) -> None:
    """Check that a form was made for this session.

    Raises:
        ApiProblem: It was not.
    """
    if not hmac.compare_digest(given.encode(errors="replace"), session.token.encode()):
        raise ApiProblem(403, "stale-form", "this form is too old: reload the page, and send it again")


def _foreign() -> ApiProblem:
    return ApiProblem(
        403,
        "foreign-form",
        "the request does not come from a page of this server; behind a proxy, it must pass on the header Host",
    )


def _named_by_proxy(request: Request, context: ServerContext) -> Caller | None:
    """Return the user whom a proxy has signed in, or None."""
    settings = context.settings
    user = request.headers.get(settings.proxy_header or "", "").strip()
    if not user or address_of(request) not in settings.proxy_addresses:
        return None
    if len(user) > _USER_CHARACTERS or not user.isprintable():
        raise ApiProblem(403, "unknown-user", f"the name of a user has at most {_USER_CHARACTERS} printable characters")
    role: str | None = settings.proxy_role
    if settings.proxy_role_header is not None:
        role = request.headers.get(settings.proxy_role_header)
    if role not in list(Role):
        raise ApiProblem(403, "unknown-role", f"the proxy names no role for this user; roles are {', '.join(Role)}")
    return Caller(f"{USER}{user}", Role(role))


def _record(cookie: str, context: ServerContext) -> KeyRecord | None:
    """Return the key of a session cookie; None if it was not made by us, is too old, or its key was revoked."""
    parts = cookie.split(".")
    if len(parts) != _PARTS or not parts[1].isdecimal():
        return None
    expected = context.keys.mac(parts[0], f"{_PURPOSE} {'.'.join(parts[:-1])}")
    if expected is None or not hmac.compare_digest(expected.encode(), parts[-1].encode(errors="replace")):
        return None
    return context.keys.find(parts[0]) if time.time() < int(parts[1]) else None


def _set_cookie(
    request: Request, response: Response, name: str, value: str, *, strict: bool, seconds: int | None = None
) -> None:
    response.set_cookie(
        _name(name, request),
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="strict" if strict else "lax",
        secure=request.headers.get("origin", "").startswith("https:"),  # a proxy may have ended TLS
    )


def _name(name: str, request: Request) -> str:
    """Return the name of a cookie at this port: browsers share cookies between all ports of a host."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"{name}_{port}" if port.isdecimal() else name


def _mac(secret: str, text: str) -> str:
    return hmac.new(secret.encode(errors="replace"), text.encode(errors="replace"), "sha256").hexdigest()
