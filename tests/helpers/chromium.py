"""Chromium, driven by Playwright, and what is checked of every page that it shows."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    expect,
    sync_playwright,
)

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHOSEN = "CONPET_CHROMIUM"
"""Environment variable that names the browser to use."""
WIDTHS = (1280, 768, 360)
HEIGHT = 800
MILLISECONDS = 60_000
"""How long a busy machine may take for a page or a change of it."""
LOCALES = {"en": "en-GB", "ja": "ja-JP"}
SERIOUS = ("serious", "critical")
_AXE = files("axe_playwright_python") / "axe.min.js"
_KNOWN_WORDS = frozenset(
    {"conpet", "ConPET", "API", "CSV", "TSV", "JSON", "JSONL", "XML", "Excel", "Parquet", "UTC", "HTTP", "ID", "URL"}
    | {
        "CPU",
        "GPU",
        "kB",
        "KiB",
        "MiB",
        "GiB",
        "GB",
        "ms",
        "Wh",
        "kWh",
        "CO2",
        "CO2e",
        "EUR",
        "USD",
        "JPY",
        "SHA",
        "LoRA",
        "RanPAC",
        "DoRA",
        "PET",
    }
    | {"Label", "Studio", "Lines", "consolidation", "Python", "Prometheus", "Krippendorff", "Enter", "Tab"}
    | {"Windows", "Macintosh", "MacRoman", "Unicode", "Shift-JIS", "EUC-JP"}
)
"""Words that are the same in Japanese."""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_'’.-]*")
_COMMAND = re.compile(r"--[a-z-]+( (hash|text))?|conpet( [a-z]+)+")

_STRUCTURE = """() => ({
  language: document.documentElement.lang,
  headings: document.querySelectorAll("h1").length,
  scripts: [...document.scripts]
    .filter((one) => one.textContent || !one.src.startsWith(location.origin + "/ui/static/"))
    .map((one) => one.outerHTML.slice(0, 200)),
  handlers: [...document.querySelectorAll("*")]
    .filter((one) => [...one.attributes].some(({ name }) => name.startsWith("on") || name === "style"))
    .map((one) => one.outerHTML.slice(0, 200)),
  links: [...document.querySelectorAll("[href], [src], [action]")]
    .map((one) => one.getAttribute("href") ?? one.getAttribute("src") ?? one.getAttribute("action"))
    .filter((address) => address && !/^([/#?]|data:image)/.test(address)),
})"""
_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolls = (one) => one.closest(".scroll, pre") !== null;
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > width + 0.5 && !scrolls(one))
    .map((one) => one.outerHTML.slice(0, 120)).slice(0, 5).concat(["the page"]);
}"""
_TEXTS = """() => {
  const foreign = "[lang=en], code, kbd, pre, samp, .code, script, style";
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement.closest(foreign)) found.push(walker.currentNode.data);
  }
  for (const name of ["placeholder", "aria-label", "title", "alt"]) {
    for (const one of document.querySelectorAll(`[${name}]`)) {
      if (!one.closest(foreign)) found.push(one.getAttribute(name));
    }
  }
  return found.filter((text) => /[A-Za-z]/.test(text));
}"""
_LINKS = """() => [
  ...[...document.querySelectorAll("a[href]")].map((one) => one.getAttribute("href")),
  ...[...document.querySelectorAll("[hx-get]")].map((one) => one.getAttribute("hx-get")),
  ...[...document.querySelectorAll("form[method=get]")].map(
    (one) => one.getAttribute("action") + "?" + new URLSearchParams(new FormData(one))),
]"""
_RUN_AXE = """(options) => axe.run(document, options).then((found) => found.violations.map((one) => ({
  id: one.id, impact: one.impact, nodes: one.nodes.map((node) => node.html.slice(0, 160) + " " +
    [...node.any, ...node.all].map((check) => check.message).join("; ").slice(0, 200)).slice(0, 4),
})))"""


def find_chromium() -> str | None:
    """Return the path of a browser that is installed, or None."""
    names = [chosen] if (chosen := os.environ.get(CHOSEN)) else NAMES
    return next((found for name in names if (found := shutil.which(name))), None)


def require_chromium() -> str:
    """Return the path of a browser; without one, fail on a build machine and skip elsewhere."""
    found = find_chromium()
    if found is None:
        reason = f"no browser was found: install the package chromium, or name a browser in {CHOSEN}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    """Start a browser that reaches this machine only."""
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--no-sandbox")
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A tab of the browser, with all that must not happen in it.

    Attributes:
        page: The page.
        origin: The address of the server.
        language: The language that the pages must have.
        user_words: Words that may appear in any language, because users have written them.
        complaints: What the browser complained about, dialogs, and requests to other hosts.
        requested: Paths that were requested and came back with a success.
        expected: Statuses of answers that the test asks for.
    """

    page: Page
    origin: str
    language: str
    user_words: frozenset[str]
    complaints: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)
    expected: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("dialog", self._asked)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("request", self._sent)
        self.page.on("response", lambda answer: self.requested.add(answer.url.removeprefix(self.origin)))
        self.page.set_default_timeout(MILLISECONDS)

    def open(self, path: str) -> int:
        """Open an address, and return the status."""
        answer = self.page.goto(f"{self.origin}{path}", wait_until="load")
        assert answer is not None, path
        return answer.status

    @property
    def path(self) -> str:
        """The address of the page, without the host."""
        return self.page.url.removeprefix(self.origin)

    @property
    def links(self) -> list[str]:
        """Addresses that the page leads to, or gets parts of itself from."""
        found: list[str] = self.page.evaluate(_LINKS)
        return [link.partition("#")[0] for link in found if link.startswith("/")]

    def check(self, *, thorough: bool = True) -> list[str]:
        """Return what is wrong with the page at three widths, in light and dark colours.

        Args:
            thorough: Whether to look for barriers in all ways, or only once.
        """
        wrong = [*self.complaints, *self._structure()]
        self.complaints.clear()
        if self.language == "ja":
            wrong += [f"not translated: {text!r}" for text in self._untranslated()]
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            wrong += [f"too wide at {width}: {one}" for one in self.page.evaluate(_TOO_WIDE)]
        wrong += self._barriers("phone")
        self.page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
        if thorough:
            wrong += self._barriers("desktop")
            self.page.emulate_media(color_scheme="dark")
            wrong += self._barriers("dark", "color-contrast")
            self.page.emulate_media(color_scheme="light")
        return [f"{self.path}: {one}" for one in wrong]

    def sign_in(self, key: str) -> None:
        """Sign in by key."""
        self.open("/ui/sign-in")
        self.page.locator("#key").fill(key)
        self.page.locator("main button").click()
        self.page.wait_for_load_state()

    def _structure(self) -> Iterator[str]:
        found = self.page.evaluate(_STRUCTURE)
        if found["language"] != self.language:
            yield f"the language is {found['language']!r}"
        if found["headings"] != 1:
            yield f"{found['headings']} main headings"
        for kind in ("scripts", "handlers", "links"):
            yield from (f"{kind}: {one}" for one in found[kind])

    def _untranslated(self) -> Iterator[str]:
        """Yield texts with English words that no user has written."""
        for text in self.page.evaluate(_TEXTS):
            words = [word.strip("'’.-") for word in _WORD.findall(_COMMAND.sub("", text))]
            known = self.user_words | _KNOWN_WORDS
            if any(word not in known and len(word) > 1 and not re.search("[0-9]", word) for word in words):
                yield " ".join(text.split())

    def _barriers(self, place: str, *rules: str) -> Iterator[str]:
        """Yield what keeps people from using the page, as far as axe-core finds it."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        options = {"preload": False, "resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = list(rules)
        for found in self.page.evaluate(_RUN_AXE, options):
            if found["impact"] in SERIOUS:
                yield f"axe ({place}): {found['id']}: {found['nodes']}"

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            expected = any(f"status of {status}" in message.text for status in self.expected)
            if not expected:
                self.complaints.append(f"console: {message.text}")

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _sent(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:")):
            self.complaints.append(f"request to {urlsplit(request.url).netloc or request.url}")


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the words in texts of users."""
    return frozenset(word.strip("'’.-") for text in texts for word in _WORD.findall(text))


def new_context(browser: Browser, language: str, *, scripts: bool = True) -> BrowserContext:
    """Return a context without cookies, for a user of a language."""
    return browser.new_context(
        locale=LOCALES[language],
        java_script_enabled=scripts,
        reduced_motion="reduce",
        viewport={"width": WIDTHS[0], "height": HEIGHT},
    )


def written(folder: Path, name: str, rows: Sequence[tuple[str, str]]) -> Path:
    """Write a table of texts and labels."""
    file = folder / name
    lines = ["text,label", *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
