"""The frame of all pages: signing in, roles, forms, languages, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conpet.dashboard.templating import assets
from conpet.serve.keys import KeyStore, Role
from tests.helpers.dashboard import Browser
from tests.helpers.serve import Served, served
from tests.helpers.workspaces import workspace

FIRST = "/ui/overview"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("pages"), 1).path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    """A server without keys."""
    with served(folder) as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("keys") / "keys.sqlite")


@pytest.fixture(scope="module")
def closed(folder: Path, store: KeyStore) -> Iterator[Served]:
    """A server with keys."""
    store.create(Role.PREDICT, "first")
    with served(folder, keys_file=store.file) as running:
        yield running


def test_a_key_opens_the_pages_until_one_signs_out(closed: Served, store: KeyStore) -> None:
    key, record = store.create(Role.LEARN, "Ada")
    browser = Browser(closed)
    asked = browser.get(f"{FIRST}?q=1")
    assert (asked.heading, asked.path) == ("Please sign in", "/ui/sign-in?next=%2Fui%2Foverview%3Fq%3D1")
    assert not asked.root.all("nav")
    wrong = browser.send(asked, "/ui/sign-in", {"key": f"{key}x"})
    assert (wrong.status, "unknown or was revoked" in wrong.text) == (401, True)
    inside = browser.send(wrong, "/ui/sign-in", {"key": key})
    assert (inside.path, inside.status) == (f"{FIRST}?q=1", 200)
    (header,) = inside.root.all("header")
    assert "Ada (may teach)" in header.text
    assert browser.get("/ui/sign-in?next=https://elsewhere").path == FIRST  # signed in already; only our own pages
    browser.send(inside, "/ui/sign-out")
    assert browser.get(FIRST).heading == "Please sign in"

    browser.sign_in(key)
    assert browser.get(FIRST).status == 200
    store.revoke(record.id)
    assert browser.get(FIRST).heading == "Please sign in"


def test_the_cookie_of_a_session_is_kept_from_scripts_and_cannot_be_made_by_others(
    closed: Served, store: KeyStore
) -> None:
    key, record = store.create(Role.OPERATE)
    browser = Browser(closed)
    page = browser.get("/ui/sign-in")
    fields = {**page.form("/ui/sign-in"), "key": key}
    answer = browser.client.post("/ui/sign-in", data=fields, headers={"Origin": browser.origin}, follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert key not in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    name = cookie.partition("=")[0]
    number, expires, nonce, signature = value.split(".")
    assert number == record.id
    forged = (
        f"{number}.{int(expires) + 1}.{nonce}.{signature}",
        f"{number}.{expires}.{nonce}.{signature[:-1]}",
        f"{number}.{expires}.{nonce}",
        "",
    )
    for other in forged:
        browser.client.cookies.clear()
        browser.client.cookies.set(name, other)
        assert browser.get(FIRST).heading == "Please sign in"


def test_sessions_end_after_their_time(folder: Path, store: KeyStore) -> None:
    key, _ = store.create(Role.PREDICT)
    with served(folder, keys_file=store.file, session_hours=1e-9) as running:
        assert Browser(running).sign_in(key).heading == "Please sign in"


def test_forms_are_taken_from_our_own_pages_only(server: Served) -> None:
    browser = Browser(server)
    page = browser.get(FIRST)
    fields = {**page.form("/ui/language"), "language": "ja"}
    for origin in ("http://elsewhere", "null", f"http://127.0.0.1:{server.port + 1}", ""):
        refused = browser.post("/ui/language", fields, Origin=origin)
        assert (refused.status, refused.heading) == (403, "Not allowed")
    assert browser.post("/ui/language", fields, **{"Sec-Fetch-Site": "same-site"}).status == 403
    for token in ("", "0" * 64, "é"):
        assert browser.post("/ui/language", {**fields, "csrf": token}).status == 403
    assert Browser(server).post("/ui/language", fields).status == 403  # the form of another session
    as_json = browser.client.post("/ui/language", json=fields, headers={"Origin": browser.origin})
    assert as_json.status_code == 415
    assert browser.post("/ui/language", fields, {"file": ("a", b"")}).status == 415  # a file where none is asked for
    assert browser.get(FIRST).root.all("html", lang="en")  # nothing was done
    assert browser.post("/ui/language", fields).root.all("html", lang="ja")


@pytest.mark.parametrize(
    ("accepted", "shown"),
    [("ja", "ja"), ("ja-JP,en;q=0.5", "ja"), ("de, en;q=0.9, ja;q=0.1", "en"), ("ja;q=0", "en"), ("*;q=x", "en")],
)
def test_the_language_is_that_of_the_browser_until_one_chooses(server: Served, accepted: str, shown: str) -> None:
    browser = Browser(server, accepted)
    page = browser.get(FIRST)
    assert page.root.all("html", lang=shown)
    other = "en" if shown == "ja" else "ja"
    chosen = browser.send(page, "/ui/language", {"language": other})
    assert (chosen.path, len(chosen.root.all("html", lang=other))) == (FIRST, 1)


def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(server: Served) -> None:
    page = Browser(server).get(FIRST)
    policy = page.response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search("unsafe|http|[*]", policy)
    assert page.response.headers["referrer-policy"] == "same-origin"
    assert page.response.headers["cache-control"] == "no-store"
    for element in page.root.every():
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.tag != "script" or not element.parts
        for name in ("src", "href", "action"):
            assert element.attributes.get(name, "/").startswith(("/", "#"))
    files = [one.attributes["src"] for one in page.root.all("script")]
    files += [one.attributes["href"] for one in page.root.all("link")]
    for file in files:
        answer = server.client.get(file)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    assert server.client.get("/ui/static/app.css").headers["cache-control"] == "no-cache"
    assert server.client.get("/ui/static/nothing.css").status_code == 404
    assert {"htmx.min.js", "app.css"} <= assets().keys()


def test_errors_are_pages_below_the_dashboard_and_problems_in_the_api(server: Served) -> None:
    browser = Browser(server)
    missing = browser.get("/ui/nothing/here")
    assert (missing.status, missing.heading) == (404, "Page not found")
    assert missing.response.headers["x-request-id"] in missing.text
    assert server.client.get("/v1/nothing").headers["content-type"] == "application/problem+json"
    assert server.client.get("/").status_code == 404  # a program
    assert browser.get("/").path == FIRST
    long = browser.post("/ui/language", {"language": "x" * 5_000_000})
    assert (long.status, long.heading) == (413, "Too large")
    host = browser.client.get(FIRST, headers={"Host": "elsewhere"})
    assert (host.status_code, "<h1>This cannot be done</h1>" in host.text) == (421, True)
    server.context.stopping = True
    try:
        waiting = browser.get(FIRST)
    finally:
        server.context.stopping = False
    assert (waiting.status, waiting.heading) == (503, "Not ready")
    assert int(waiting.response.headers["refresh"]) > 0


def test_head_is_answered_as_get_without_a_body(server: Served, closed: Served) -> None:
    browser = Browser(server)
    for path in ("/", "/ui/", FIRST, "/ui/tasks/learn", "/ui/audit/export", "/ui/static/app.css"):
        asked, got = browser.client.head(path), browser.client.get(path)
        assert (asked.status_code, asked.content, asked.url) == (200, b"", got.url), path
        assert asked.headers["content-type"] == got.headers["content-type"]
    assert browser.client.head("/ui/nowhere").status_code == 404
    assert Browser(closed).client.head(FIRST).status_code == 401


def test_rates_hold_for_pages_too(folder: Path, store: KeyStore) -> None:
    key, _ = store.create(Role.PREDICT)
    with served(folder, keys_file=store.file, rate_limit=0.01, rate_burst=2) as running:
        browser = Browser(running)
        assert browser.sign_in(key).status == 200
        assert [browser.get(FIRST).status for _ in range(2)] == [200, 429]
        assert int(browser.get(FIRST).response.headers["retry-after"]) > 50


def test_a_proxy_can_sign_users_in(folder: Path) -> None:
    settings = {"proxy_header": "X-User", "proxy_role_header": "X-Role"}
    with served(folder, **settings) as running:
        browser = Browser(running)
        assert browser.get(FIRST).heading == "Please sign in"  # past the proxy, nobody comes in
        browser.client.headers["X-User"] = "ada@example.org"
        assert browser.get(FIRST).status == 403  # no role
        browser.client.headers["X-Role"] = "learn"
        (header,) = browser.get(FIRST).root.all("header")
        assert "ada@example.org (may teach)" in header.text
        assert "Sign out" not in header.text
    with served(folder, **settings, proxy_addresses="10.0.0.1") as running:
        browser = Browser(running)
        browser.client.headers.update({"X-User": "ada", "X-Role": "operate"})
        assert browser.get(FIRST).heading == "Please sign in"


def test_the_pages_can_be_turned_off(folder: Path) -> None:
    with served(folder, dashboard=False) as running:
        answer = running.client.get(FIRST, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert running.client.get("/", headers={"Accept": "text/html"}).status_code == 404
