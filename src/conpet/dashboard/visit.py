"""A request for a page: who asks, in which language, and what the answer is made with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup, escape
from starlette.responses import Response

from conpet.dashboard.formats import Formats
from conpet.dashboard.forms import MULTIPART, Form, read_form, read_upload
from conpet.dashboard.messages import LANGUAGES, Language, chosen, marked
from conpet.dashboard.navigation import ROOT, Entry
from conpet.dashboard.phrases import said
from conpet.dashboard.session import (
    TOKEN,
    TOKEN_HEADER,
    Session,
    check_origin,
    check_token,
    preference,
    remember,
    session_of,
    set_preference,
)
from conpet.dashboard.templating import environment
from conpet.evaluation.gate import Comparison
from conpet.problem_details import ApiProblem
from conpet.serve.auth import Caller, check
from conpet.serve.bodies import media_type_of
from conpet.serve.context import ServerContext, context_of
from conpet.serve.keys import Role

LANGUAGE, _FLASH = "conpet_language", "conpet_flash"
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Referrer-Policy": "same-origin",  # without a referrer, browsers send forms without their origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Headers of pages; those of the API are added where these say nothing."""
ROLE_NAMES = {
    Role.PREDICT: marked("may ask"),
    Role.LEARN: marked("may teach"),
    Role.OPERATE: marked("may do everything"),
}
"""What people with a role may do."""


class Visit:
    """A request for a page.

    Args:
        request: The request.
        session: Who asks.
        form: What was sent with it; without fields unless it was a form without a file.

    Attributes:
        request: The request.
        session: Who asks.
        form: What was sent.
        language: The language of the page.
        formats: The formats of values in that language, also the filters of templates.
    """

    def __init__(self, request: Request, session: Session, form: Form | None = None) -> None:
        self.request = request
        self.session = session
        self.form = form or Form()
        self.language: Language = chosen(preference(request, LANGUAGE), request.headers.get("accept-language", ""))
        self.formats = Formats(self.language)
        self.gettext = self.language.gettext
        self.ngettext = self.language.ngettext

    @property
    def context(self) -> ServerContext:
        """What the endpoints of the server share."""
        return context_of(self.request)

    @property
    def caller(self) -> Caller:
        """Who asks.

        Raises:
            ApiProblem: Nobody is signed in.
        """
        if self.session.caller is None:
            raise ApiProblem(401, "unauthorized", "sign in first")
        return self.session.caller

    def allows(self, role: Role) -> bool:
        """Return whether whoever asks may do what a role is needed for."""
        return self.session.caller is not None and self.session.caller.role.allows(role)

    @property
    def partial(self) -> bool:
        """Whether htmx asks for a part of a page."""
        return "hx-request" in self.request.headers

    async def upload(self, file: Path) -> Form:
        """Return the fields of a form with a file, and write the file, if there is one.

        The page's module names its address in `UPLOADS`.

        Raises:
            ApiProblem: The form is broken, or was not made for this session.
        """
        form = await read_upload(self.request, file)
        check_token(self.session, form.get(TOKEN))
        return form

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page.

        Args:
            template: File name of its template.
            status: HTTP status.
            values: The values of its template, beside those that all have.
        """
        flash = self._flash()
        content = (
            environment(self.language.code)
            .get_template(template)
            .render(
                visit=self,
                flash=flash,
                languages=LANGUAGES,
                entries=self._entries(),
                role_names=ROLE_NAMES,
                Role=Role,
                version=version("conpet"),
                **values,
            )
        )
        response = HTMLResponse(content, status, HEADERS | {"Vary": "Cookie, Accept-Language"})
        remember(self.request, response, self.session)
        if flash:
            response.delete_cookie(_FLASH, path=ROOT)
        return response

    def confirm(
        self,
        *,
        title: str,
        effects: Sequence[str],
        action: str,
        fields: Mapping[str, str],
        button: str,
        back: str,
        danger: bool = False,
        reason: str = "",
        broken: Sequence[Comparison] = (),
    ) -> Response:
        """Return a page that says what an action will do, and has the button that does it.

        Args:
            title: What is asked.
            effects: What will happen, a sentence each.
            action: The address that the form is sent to.
            fields: Its hidden fields.
            button: The text of its button.
            back: The address of the page to go back to.
            danger: Whether it cannot be undone.
            reason: Why it should be done, if there is a reason.
            broken: What the gate says would get worse.
        """
        return self.render(
            "confirm.html",
            title=title,
            effects=effects,
            action=action,
            fields=fields,
            button=button,
            back=back,
            danger=danger,
            reason=reason,
            broken=broken,
        )

    def redirect(self, path: str, flash: str = "") -> Response:
        """Return a redirect to another page of the dashboard, which shows a message above its content."""
        if self.partial:
            response = Response(status_code=204, headers={"HX-Redirect": path})
        else:
            response = RedirectResponse(path, 303)
        remember(self.request, response, self.session)
        if flash:
            signed = self.session.sign(quote(flash))
            response.set_cookie(_FLASH, signed, max_age=60, path=ROOT, httponly=True, samesite="strict")
        return response

    def prefer(self, response: Response, code: str) -> None:
        """Keep the language chosen by hand."""
        if code in LANGUAGES:
            set_preference(self.request, response, LANGUAGE, code, seconds=365 * 24 * 3600)

    @property
    def here(self) -> str:
        """The address of this page, to come back to."""
        url = self.request.url
        if self.request.method not in ("GET", "HEAD"):
            return f"{ROOT}/"
        return url.path + (f"?{url.query}" if url.query else "")

    @property
    def headers_json(self) -> str:
        """The headers that htmx sends with its requests."""
        return json.dumps({TOKEN_HEADER: self.session.token})

    def said(self, message: str) -> Markup:
        """Return a message of the library as the page shows it: in its language, or marked as English."""
        found = said(self.language, message)
        return Markup('<span lang="en">{}</span>').format(message) if found is None else escape(found)

    def sentence(self, message: str) -> Markup:
        """Return what `said` does, as a sentence of its own."""
        shown = self.said(message)
        return Markup("{}{}.").format(shown[:1].upper(), shown[1:]) if self.language.is_source else shown

    def _flash(self) -> str:
        """Return the message that the page before has left, or ""."""
        cookie = self.request.cookies.get(_FLASH)
        return unquote(self.session.signed(cookie) or "") if cookie and not self.partial else ""

    def _entries(self) -> list[Entry]:
        site = self.context.pages
        every: Sequence[Entry] = getattr(site, "entries", ())
        return [entry for entry in every if self.allows(entry.role)]


def visits(role: Role | None) -> Any:
    """Return a dependency that admits whoever has a role to a page; its value is the `Visit`.

    A form is admitted only if it comes from one of our own pages and was made for the session.

    Args:
        role: The role; None for pages that anybody may see.
    """

    async def admitted(request: Request) -> Visit:
        session = session_of(request)
        visit = Visit(request, session)
        if role is not None:
            check(request, visit.caller, role)
        if request.method not in ("GET", "HEAD"):
            check_origin(request)
            uploads: Sequence[str] = getattr(visit.context.pages, "uploads", ())
            if media_type_of(request) != MULTIPART or request.url.path not in uploads:  # `Visit.upload` reads those
                visit.form = await read_form(request)
                check_token(session, request.headers.get(TOKEN_HEADER) or visit.form.get(TOKEN))
        return visit

    return Depends(admitted)
