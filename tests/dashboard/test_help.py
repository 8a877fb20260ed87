"""The guides that the dashboard shows."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from conpet.dashboard.pages.help import GUIDES
from tests.helpers.dashboard import Browser
from tests.helpers.serve import Served, served
from tests.helpers.workspaces import workspace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(workspace(tmp_path_factory.mktemp("help"), 1).path) as running:
        yield running


@pytest.mark.parametrize(
    ("language", "titles"),
    [
        ("en", ["Five ideas in pictures", "The weekly round", "When a number goes red", "Glossary"]),
        ("ja", ["図でわかる5つのしくみ", "週に一度の点検", "数値が赤になったら", "用語集"]),
    ],
)
def test_the_guides_are_in_the_language_of_the_page(server: Served, language: str, titles: list[str]) -> None:
    browser = Browser(server, language)
    assert browser.get("/ui/help").heading == titles[0]
    assert [browser.get(f"/ui/help/{name}").heading for name in GUIDES] == titles


@pytest.mark.parametrize("language", ["en", "ja"])
def test_pictures_and_links_of_the_guides_lead_somewhere(server: Served, language: str) -> None:
    browser = Browser(server, language)
    for name in GUIDES:
        page = browser.get(f"/ui/help/{name}")
        assert [
            one for one in page.root.all("img") if server.client.get(one.attributes["src"]).status_code != 200
        ] == []
        links = [one.attributes["href"] for one in page.root.all("a") if one.attributes["href"].startswith("/ui/help/")]
        assert links
        for link in links:
            path, _, anchor = unquote(link).partition("#")
            target = browser.get(path)
            headings = [
                one for level in ("h2", "h3") for one in target.root.all(level) if one.attributes["id"] == anchor
            ]
            assert len(headings) == (1 if anchor else 0), link


def test_a_guide_that_does_not_exist_is_no_page(server: Served) -> None:
    assert Browser(server).get("/ui/help/nothing").status == 404
