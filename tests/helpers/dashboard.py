"""A browser without scripts, for the tests of pages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx2

from tests.helpers.serve import Served

_SILENT = frozenset({"script", "style", "title"})
_EMPTY = frozenset({"input", "meta", "link", "br", "hr", "img"})
SHOWN = ("placeholder", "aria-label", "title", "alt")
"""Attributes with text for people."""


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text in it, with single blanks."""
        parts = (part if isinstance(part, str) else part.text for part in self.parts if part is not None)
        return " ".join(" ".join("" if self.tag in _SILENT else part for part in parts).split())

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements in it with a tag and attributes (`class_` for `class`)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                if part.tag == tag and all(part.attributes.get(name) == value for name, value in wanted.items()):
                    found.append(part)
                found += part.all(tag, **attributes)
        return found

    def every(self) -> list[Element]:
        """Return all elements in it."""
        return [one for part in self.parts if isinstance(part, Element) for one in (part, *part.every())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].parts.append(element)
        if tag not in _EMPTY:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if any(one.tag == tag for one in self._open[1:]):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


@dataclass
class Page:
    """A page that was received."""

    response: httpx2.Response

    def __post_init__(self) -> None:
        reader = _Reader()
        reader.feed(self.response.text)
        self.root = reader.root

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def path(self) -> str:
        """The address after all redirects."""
        return self.response.url.raw_path.decode()

    @property
    def heading(self) -> str:
        (heading,) = self.root.all("h1")
        return heading.text

    @property
    def text(self) -> str:
        (main,) = self.root.all("main")
        return main.text

    def form(self, action: str) -> dict[str, str]:
        """Return the hidden fields of the form that is sent to an address."""
        form = next(form for form in self.root.all("form") if form.attributes.get("action", "") == action)
        return {one.attributes["name"]: one.attributes["value"] for one in form.all("input", type="hidden")}

    def rows(self, caption: str) -> list[list[str]]:
        """Return the cells of the body of a table."""
        for table in self.root.all("table"):
            if [one.text for one in table.all("caption")] == [caption]:
                (body,) = table.all("tbody")
                return [[c.text for c in row.parts if isinstance(c, Element)] for row in body.all("tr")]
        raise AssertionError(f"no table {caption!r} in {self.text}")


class Browser:
    """Keeps cookies, follows redirects and sends forms, as a browser that runs no scripts.

    Args:
        server: The server.
        language: The language it prefers.
    """

    def __init__(self, server: Served, language: str = "en") -> None:
        self.origin = f"http://127.0.0.1:{server.port}"
        headers = {"Accept-Language": language, "Accept": "text/html"}
        self.client = httpx2.Client(base_url=self.origin, timeout=60, headers=headers, follow_redirects=True)

    def get(self, path: str, **query: Any) -> Page:
        return self._arrived(self.client.get(path, params=query or None))

    def post(self, path: str, fields: dict[str, Any], files: Any = None, **headers: str) -> Page:
        """Send fields as a form of our own page would; `files` as for httpx."""
        sent = {"Origin": self.origin, **headers}
        return self._arrived(self.client.post(path, data=fields, files=files, headers=sent))

    def send(self, page: Page, action: str, fields: dict[str, Any] | None = None, files: Any = None) -> Page:
        """Fill in a form of a page, and send it."""
        return self.post(action, {**page.form(action), **(fields or {})}, files)

    def sign_in(self, key: str) -> Page:
        return self.send(self.get("/ui/sign-in"), "/ui/sign-in", {"key": key})

    def _arrived(self, response: httpx2.Response) -> Page:
        page = Page(response)
        refresh = re.findall(r'http-equiv="refresh" content="0;url=([^"]+)"', response.text)
        return self.get(refresh[0]) if refresh else page
