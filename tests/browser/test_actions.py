"""What people do, from the first click to what it changes: with mouse, keyboard alone, and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from conpet.serve.keys import Role
from tests.browser.conftest import ASKED, FILE, FIRST, OTHER_KEY, SECOND, TEXT, Site
from tests.helpers import gate
from tests.helpers.chromium import Tab, written
from tests.helpers.serve import wait_for

JOB_MILLISECONDS = 180_000
NEW_TASK = '"><script>alert(2)</script>'
_FOCUS = """() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  return at === document.body || style.outlineStyle !== "none" || style.boxShadow !== "none";
}"""
Opened = Callable[..., Tab]


def follow(tab: Tab, name: str) -> None:
    """Click on an entry of the navigation."""
    tab.page.get_by_role("navigation", name="Main").get_by_role("link", name=name, exact=True).click()


def press(tab: Tab, name: str) -> None:
    tab.page.get_by_role("button", name=name).first.click()


def focus(tab: Tab, target: Locator) -> None:
    """Press Tab until an element has the focus; what has it must be seen."""
    for _ in range(80):
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate(_FOCUS), tab.page.evaluate("document.activeElement.outerHTML")
        if target.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached by the keyboard on {tab.path}")


def test_a_file_is_learned_after_a_look_at_its_check(site: Site, tab_of: Opened, tmp_path: Path) -> None:
    tab = tab_of(key=None)
    page = tab.page
    tab.expected.add(401)
    tab.sign_in(f"{site.key}x")
    expect(page.get_by_role("alert")).to_contain_text("unknown or was revoked")
    tab.sign_in(site.key)
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")

    follow(tab, "Tasks")
    page.get_by_role("link", name="Learn a task").click()
    page.get_by_label("Name of the task").fill(NEW_TASK)
    rows = [(one.text, str(one.label)) for one in (*gate.THIRD.train, *gate.THIRD.validation)]
    page.get_by_label("File").set_input_files(written(tmp_path, FILE, [*rows, (TEXT, rows[0][1]), rows[0]]))
    press(tab, "Check the file")
    expect(page.get_by_role("heading", level=1)).to_contain_text(NEW_TASK)
    expect(page.get_by_role("main")).to_contain_text(FILE)
    assert tab.check() == []
    press(tab, "Start learning")
    expect(page.get_by_text("Gate passed")).to_be_visible(timeout=JOB_MILLISECONDS)
    assert tab.check() == []
    page.get_by_role("link", name=NEW_TASK).click()
    page.get_by_role("link", name="Versions").click()
    expect(page.get_by_role("row").filter(has_text="answers")).to_have_count(1)

    follow(tab, "Try it")
    page.get_by_label("Text").fill(gate.THIRD.test[0].text)
    press(tab, "Ask")
    expect(page.get_by_role("table", name="Likeliest labels")).to_contain_text(NEW_TASK)
    assert tab.check() == []


def test_a_task_is_rolled_back_without_scripts(tab_of: Opened) -> None:
    tab = tab_of(scripts=False)
    page = tab.page
    follow(tab, "Tasks")
    page.get_by_role("link", name=SECOND.name, exact=True).click()
    page.get_by_role("link", name="Versions").click()
    page.locator('a[href$="version=1"]').click()
    expect(page.get_by_role("main")).to_contain_text("version 1")
    press(tab, "Roll back")
    page.get_by_role("link", name="To the tasks").click(timeout=JOB_MILLISECONDS)  # the page reloads until then
    page.get_by_role("link", name=SECOND.name, exact=True).click()
    page.get_by_role("link", name="Versions").click()
    expect(page.get_by_role("row").filter(has_text="answers").get_by_role("rowheader")).to_have_text("1")
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    assert tab.complaints == []


def test_reviewed_answers_become_a_version(site: Site, tab_of: Opened) -> None:
    tab = tab_of()
    page = tab.page
    before = site.server.context.serving.live.generation
    follow(tab, "Review")
    page.get_by_role("link", name="Start reviewing").click()
    checked = False
    while page.locator("blockquote").count():
        page.wait_for_load_state()  # keys are read from then on
        if not checked:
            checked = True
            assert tab.check() == []
        text = page.locator("blockquote").inner_text().strip()
        number = page.get_by_role("heading", level=1).inner_text()
        if text in ASKED:
            page.keyboard.press("/")
            page.keyboard.type(ASKED[text])
            page.keyboard.press("Enter")
        else:
            page.keyboard.press("s")
        expect(page.get_by_role("heading", level=1)).not_to_have_text(number)
    assert checked
    page.get_by_role("link", name="Learn what was reviewed").click()
    assert tab.check() == []
    page.get_by_role("button", name="Learn ").click()
    expect(page.get_by_text("Gate passed")).to_be_visible(timeout=JOB_MILLISECONDS)
    wait_for(lambda: site.server.context.serving.live.generation > before)


def test_a_key_is_made_and_revoked(tab_of: Opened) -> None:
    tab = tab_of()
    page = tab.page
    follow(tab, "Keys")
    page.get_by_label("Name").fill(OTHER_KEY)
    page.get_by_role("radio", name=str(Role.LEARN)).check()
    press(tab, "Make the key")
    assert tab.check() == []
    key = page.locator("#key").input_value()
    page.get_by_role("button", name="Copy the key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    guest = tab_of(key=key)
    assert guest.open("/ui/tasks") == 200
    expect(guest.page.get_by_role("banner")).to_contain_text(OTHER_KEY)

    follow(tab, "Keys")
    page.get_by_role("link", name=f"Revoke {OTHER_KEY}").click()
    press(tab, "Revoke the key")
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    guest.expected.add(401)
    guest.open("/ui/tasks")
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Please sign in")
    assert tab.complaints + guest.complaints == []


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_language_is_chosen_by_hand(tab_of: Opened, language: str) -> None:
    tab = tab_of(language)
    other = {"en": "ja", "ja": "en"}[language]
    tab.page.locator(f"button[lang={other}]").click()
    expect(tab.page.locator("html")).to_have_attribute("lang", other)
    tab.open("/ui/tasks")
    expect(tab.page.locator("html")).to_have_attribute("lang", other)


def test_the_keyboard_is_enough(site: Site, tab_of: Opened) -> None:
    tab = tab_of(key=None)
    page, keys = tab.page, tab.page.keyboard
    tab.open("/ui/sign-in")
    expect(page.get_by_label("API key")).to_be_focused()  # without a click
    keys.type(site.key)
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.wait_for_load_state()
    keys.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#content"
    keys.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()

    tab.open("/ui/overview")
    focus(tab, page.get_by_role("navigation", name="Main").get_by_role("link", name="Try it", exact=True))
    keys.press("Enter")
    expect(page.get_by_label("Text")).to_be_focused()
    keys.type(FIRST.test[0].text)
    focus(tab, page.get_by_role("button", name="Ask"))
    keys.press("Space")
    expect(page.get_by_role("heading", name="Answer")).to_be_visible()
    focus(tab, page.locator("summary", has_text="This is wrong"))
    keys.press("Enter")
    focus(tab, page.get_by_label("Right label"))
    keys.type(str(FIRST.test[0].label))
    focus(tab, page.get_by_role("button", name="Send to review"))
    keys.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Thank you")
    assert tab.complaints == []
