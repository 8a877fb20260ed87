"""Every page, in both languages, at three widths and in both colours, with names that try to break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi.routing import APIRoute

from tests.browser.conftest import Site
from tests.helpers.chromium import CHOSEN, Tab, require_chromium

ELSEWHERE = frozenset({"/", "/ui", "/ui/", "/ui/{path:path}", "/ui/static/{name}", "/ui/review/labels"})
"""Addresses without a page of their own; the last one is asked for where there are thousands of labels."""
VIEWS = ("view", "state")
"""Fields of addresses whose values make pages of their own."""


def routes(site: Site) -> list[APIRoute]:
    """Return the routes of all pages and of what belongs to them."""
    pages = site.server.context.pages
    assert pages is not None
    every = [route for router in pages.routers for route in router.routes if isinstance(route, APIRoute)]
    return [route for route in every if "GET" in route.methods and route.path not in ELSEWHERE]


def route_of(address: str, known: Sequence[APIRoute]) -> str | None:
    path = urlsplit(address).path
    return next((route.path for route in known if route.path_regex.match(path)), None)


def kind_of(address: str, route: str) -> tuple[str, ...]:
    """Return what pages that are made alike have in common."""
    query = parse_qsl(urlsplit(address).query, keep_blank_values=True)
    return (route, *sorted(f"{name}={value}" if name in VIEWS else name for name, value in query))


def walk(site: Site, tab: Tab, wrong: list[str]) -> Iterator[str]:
    """Follow all links from the navigation on, and yield the address of each page that is shown.

    Of pages that are made alike, the first is looked at, rather with names that try to break it.
    """
    known, seen = routes(site), set[tuple[str, ...]]()
    ahead = [entry.path for entry in site.server.context.pages.entries] + [*site.staged, "/ui/tasks/task?name=zq"]
    while ahead:
        address = ahead.pop(0)
        route = route_of(address, known)
        if route is None or (kind := kind_of(address, route)) in seen:
            continue
        seen.add(kind)
        answer = tab.page.context.request.get(f"{site.origin}{address}", max_redirects=0)
        tab.requested.add(address)
        shown = answer.headers.get("content-type", "").startswith("text/html") and "<main" in answer.text()
        if answer.status not in (200, 303):
            wrong.append(f"{address}: status {answer.status}")
            continue
        if not shown or answer.headers.get("content-disposition", "").startswith("attachment"):
            continue
        if (status := tab.open(address)) != 200:
            wrong.append(f"{address}: status {status}")
            continue
        ahead += sorted(tab.links, key=lambda link: "script" not in link)
        yield address


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_page_is_well_made(site: Site, tab_of: Callable[..., Tab], language: str) -> None:
    tab = tab_of(language)
    wrong: list[str] = []
    looked_at = set[str | None]()
    known = routes(site)
    for address in walk(site, tab, wrong):
        route = route_of(address, known)
        wrong += tab.check(thorough=language == "en" and route not in looked_at)  # colours are those of all languages
        looked_at.add(route)
    assert wrong == [], "\n".join(wrong)
    reached = {route_of(address, known) for address in tab.requested}
    assert sorted({route.path for route in known} - reached) == []


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("width", [360, 390])
def test_words_in_the_header_are_not_broken_on_a_phone(tab_of: Callable[..., Tab], language: str, width: int) -> None:
    tab = tab_of(language)
    tab.page.set_viewport_size({"width": width, "height": 780})
    assert tab.open("/ui/keys") == 200
    lines = tab.page.evaluate(
        """() => [...document.querySelectorAll('.account button')].map(button => {
            const text = document.createRange();
            text.selectNodeContents(button);
            return [button.textContent, new Set([...text.getClientRects()].map(line => line.top)).size];
        })"""
    )
    assert len(lines) == 3
    assert [broken for broken in lines if broken[1] != 1] == []
    assert tab.page.evaluate("() => document.querySelector('header.top').offsetHeight") < 100


FAULTS = {
    "too wide at 360": "title.style.minWidth = '2000px'",
    "handlers: <b onclick": "title.innerHTML = '<b onclick=\"x()\">x</b>'",
    "scripts: <script>": "title.append(Object.assign(document.createElement('script'), { textContent: 'x()' }))",
    "console: Executing inline script": "title.append(Object.assign(document.createElement('script'), { text: 'x' }))",
    "console: Connecting to 'http://elsewhere": "fetch('http://elsewhere.example/').catch(() => 0)",
    "image-alt": "title.append(new Image())",
    "color-contrast": "title.style.color = '#ccc'",
    "dialog: 1": "alert(1)",
    "not translated: 'Not translated'": "title.append('Not translated')",
    "the language is 'de'": "document.documentElement.lang = 'de'",
    "0 main headings": "title.remove()",
}
"""What is complained about, and a script that gives cause to it."""


def test_what_is_wrong_with_a_page_is_found(tab_of: Callable[..., Tab]) -> None:
    tab = tab_of("ja")
    for fault, script in FAULTS.items():
        assert tab.open("/ui/sign-in") == 200
        tab.page.evaluate(f"() => {{ const title = document.querySelector('h1'); {script}; }}")
        assert fault in "\n".join(tab.check(thorough=False)), fault


def test_a_missing_browser_fails_on_a_build_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOSEN, "no-such-browser")
    for build_machine, outcome in (("true", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("CI", build_machine)
        with pytest.raises(outcome, match="install the package chromium"):
            require_chromium()
