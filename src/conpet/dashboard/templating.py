"""The templates of the pages, in each language, and the files they refer to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from conpet.dashboard.formats import Formats
from conpet.dashboard.messages import Language, language
from conpet.dashboard.navigation import ROOT

STATIC = Path(__file__).parent / "static"
PICTURES = Path(__file__).parent / "help" / "pictures"
_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file that pages refer to, with the digest that its address has."""

    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Return the files that pages refer to, by name."""
    files = (path for folder in (STATIC, PICTURES) for path in sorted(folder.iterdir()) if path.suffix in _MEDIA_TYPES)
    return {path.name: _asset(path) for path in files}


@cache
def environment(code: str) -> Environment:
    """Return the environment of the templates in a language: values are escaped, undefined names are errors."""
    made = Environment(
        loader=PackageLoader("conpet", "dashboard/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    spoken = language(code)
    made.install_gettext_translations(spoken.translations, newstyle=True)  # type: ignore[attr-defined]
    made.filters.update(Formats(spoken).filters)
    made.globals.update(asset=_address, link=link, csrf=_csrf)
    made.globals["ngettext"] = _with_number(made.globals["ngettext"], spoken)
    return made


def link(path: str, **query: Any) -> str:
    """Return the address of a page below `ROOT`, with what is not None as its query, percent-encoded."""
    given = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    return f"{ROOT}/{path}" + (f"?{given}" if given else "")


def _with_number(ngettext: Any, spoken: Language) -> Callable[..., str]:
    """Return a function for messages in their form for a number, which is written as the language does."""

    @pass_context
    def chosen(context: Context, one: str, many: str, number: int, **values: Any) -> str:
        text: str = ngettext(context, one, many, number, num=spoken.written(number), **values)
        return text

    return chosen


@pass_context
def _csrf(context: Context) -> Markup:
    """Return the hidden field that every form needs."""
    token = context["visit"].session.token
    return Markup('<input type="hidden" name="csrf" value="{}">').format(token)


def _address(name: str) -> str:
    return f"{ROOT}/static/{name}?v={assets()[name].digest}"


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:12])
