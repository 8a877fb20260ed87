"""The review pages: an answer at a time, several reviewers, learning, import, export, reports; in two languages."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest

from conpet.dashboard.pages.review import segments
from conpet.data import Example, Span
from conpet.serve.keys import KEYS, KeyStore, Role
from tests.helpers.dashboard import Browser, Page
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

TASKS = stream()
FIRST, SECOND = TASKS[0].labels
TEXTS = [f"{example.text} again" for task in TASKS[:2] for example in task.test]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a workspace whose server has recorded some answers with their texts."""
    with served(workspace(tmp_path_factory.mktemp("served"), 2).path, log_predictions="text") as running:
        running.predict(TEXTS, headers={"X-Request-ID": "asked"})
        wait_for(lambda: running.context.recorder.predictions.total() == len(TEXTS))
        yield running


def values(page: Page, name: str) -> list[str]:
    return [one.attributes["value"] for one in page.root.all("button") if one.attributes.get("name") == name]


def test_answers_are_drawn_reviewed_undone_and_learned_without_scripts(server: Served) -> None:
    browser = Browser(server)
    page = browser.get("/ui/review")
    assert page.heading == "Review"
    page = browser.send(page, "/ui/review/draw", {"random": 4, "uncertain": 0, "declined": 0, "double": 0})
    assert f"4 new items are in review, from {len(TEXTS)} answers." in page.text
    page = browser.get("/ui/review/next")
    assert "Right with probability" in page.text or "declined" in page.text
    assert {"none", "skip", "typed"} & set(values(page, "verdict")) >= {"skip", "typed"}
    assert values(page, "candidate")
    item = page.form("/ui/review/answer")["item"]
    wrong = browser.send(page, "/ui/review/answer", {"verdict": "typed", "label": "no such label"})
    assert wrong.status == 422
    assert "is not learned" in wrong.text
    assert "no such label" in [one.attributes["value"] for one in wrong.root.all("input") if "value" in one.attributes]
    empty = browser.send(page, "/ui/review/answer", {"verdict": "typed", "label": ""})
    assert (empty.status, "Choose the right label." in empty.text) == (422, True)
    page = browser.send(page, "/ui/review/answer", {"verdict": "typed", "label": FIRST, "note": "seen twice"})
    assert f"Item {item}: {FIRST}." in page.text
    assert page.form("/ui/review/answer")["item"] != item
    page = browser.send(page, "/ui/review/undo")
    assert page.heading == f"Review: item {item}"
    page = browser.send(page, "/ui/review/answer", {"candidate": SECOND})
    page = browser.send(page, "/ui/review/answer", {"verdict": "new", "new": "brand new"})
    assert "brand new." in page.text
    page = browser.send(page, "/ui/review/answer", {"verdict": "skip"})
    page = browser.send(page, "/ui/review/answer", {"verdict": "none"})
    assert (page.path, page.heading) == ("/ui/review", "Review")
    assert "Nothing waits for you" in page.text
    assert "95% interval" in page.text
    assert page.rows("What reviewers have done")[0][1:3] == ["4", "1"]
    listed = browser.get("/ui/review/items", state="done")
    assert len(listed.rows("3 items")) == 3
    assert [row[4] for row in browser.get("/ui/review/items", q="brand").rows("1 item")] == ["brand new (new)"]
    plan = browser.get("/ui/review/learn")
    assert "gets a new version with 1 more example" in plan.text
    assert "Choose a task for it above" in plan.rows("Items that are not learned yet")[0][2]
    plan = browser.get("/ui/review/learn", into=TASKS[1].name)
    assert "New label: brand new" in plan.text
    bad = browser.get("/ui/review/learn", name="alone")
    assert (bad.status, "brand new" in bad.text) == (422, True)
    job = browser.send(plan, "/ui/review/learn")
    assert job.heading == "Learn what was reviewed"
    wait_for(lambda: server.context.review().status().learned == 2)
    done = browser.get("/ui/review/item", number=item)
    assert "has learned this item" in done.text
    assert server.context.recorder.predictions.total() == len(TEXTS)


def test_files_go_in_and_out_and_wrong_ones_are_named(server: Served) -> None:
    browser = Browser(server)
    page = browser.get("/ui/review")
    files = {"file": ("rows.csv", f"text,label\n<b>one</b> thing,\nanother thing,{FIRST}\n".encode())}
    page = browser.send(page, "/ui/review/import", files=files)
    assert "2 new items. Verdicts taken over: 1." in page.text
    tasks = browser.client.get("/ui/review/export.json", params={"state": "open"})
    assert "attachment" in tasks.headers["content-disposition"]
    (task,) = [one for one in tasks.json() if one["data"]["text"] == "<b>one</b> thing"]
    value = {"choices": [SECOND]}
    task["annotations"] = [{"result": [{"type": "choices", "from_name": "label", "value": value}]}]
    files = {"file": ("export.json", json.dumps([task]).encode())}
    assert "0 new items. Verdicts taken over: 1." in browser.send(page, "/ui/review/import", files=files).text
    assert SECOND in browser.client.get("/ui/review/label-studio.xml").text
    shown = browser.get("/ui/review/items", q="one")
    assert "<b>one</b> thing" in shown.text
    assert shown.root.all("b") == []
    for name, content in (("a.txt", "こんにちは\n道に迷った\n"), ("b.csv", "text\nthird text\n")):  # without labels
        files = {"file": (name, content.encode("cp932"))}
        sent = browser.send(page, "/ui/review/import", {"encoding": "cp932"}, files)
        assert f"{content.count(chr(10)) - (name == 'b.csv')} new item" in sent.text
    book = openpyxl.Workbook()
    for row in (["Was"], ["fourth text"], ["fifth text"]):
        book.active.append(row)
    saved = io.BytesIO()
    book.save(saved)
    files = {"file": ("t2.xlsx", saved.getvalue())}
    refused = browser.send(page, "/ui/review/import", files=files)
    assert (refused.status, refused.heading) == (422, "Review")
    assert "t2.xlsx: 1 problem; nothing was imported" in refused.text
    assert "name the column of the text" in refused.text
    assert "2 new items." in browser.send(page, "/ui/review/import", {"text_column": "Was"}, files).text
    for name, content in (("rows.exe", b"x"), ("rows.json", b"{"), ("rows.csv", b"text,label\n,a\n")):
        refused = browser.send(page, "/ui/review/import", files={"file": (name, content)})
        assert refused.status == 422, name
    large = b"text\n" + b"many words\n" * 500_000
    assert browser.send(page, "/ui/review/import", files={"file": ("rows.csv", large)}).status == 413


def test_an_item_that_another_reviewer_has_is_shown_without_buttons(server: Served) -> None:
    review = server.context.review()
    review.add(["only one has this"])
    held = review.next("ann", kind="imported")
    assert held is not None
    page = Browser(server).get("/ui/review/item", number=held.id)
    assert "ann has this item until" in page.text
    assert not page.root.all("form", action="/ui/review/answer")
    review.queue.release("ann")
    assert Browser(server).get("/ui/review/item", number=held.id).root.all("form", action="/ui/review/answer")


def test_an_answer_is_reported_by_who_may_only_ask_and_reviewed_by_who_may_teach(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 2).path
    keys = KeyStore(folder / KEYS)
    asker = keys.create(Role.PREDICT)[0]
    ann, ben = (keys.create(Role.LEARN, name)[0] for name in ("Ann", "Ben"))
    with served(folder) as server:
        person, first, second = Browser(server), Browser(server), Browser(server, "ja")
        for browser, key in ((person, asker), (first, ann), (second, ben)):
            browser.sign_in(key)
        assert person.get("/ui/review").status == 403
        token = person.get("/ui/overview").form("/ui/language")["csrf"]
        row = json.dumps({"tokens": ["Ada", "met", "Bob"], "mention": [0, 1]})
        for given in ({"input": json.dumps({"text": "a wrong answer"}), "label": FIRST, "note": "no"}, {"input": row}):
            told = person.post("/ui/review/report", {"csrf": token, **given})
            assert told.status in (200, 404)  # the page it leads to is another one's
        assert person.post("/ui/review/report", {"csrf": token, "input": "{"}).status == 422
        assert person.post("/ui/review/report", {"csrf": token}).status == 422
        page = first.get("/ui/review/next")
        assert "Reported as wrong 1 time. Suggested: " + FIRST in page.text
        other = second.get("/ui/review/next")
        assert other.form("/ui/review/answer")["item"] != page.form("/ui/review/answer")["item"]
        assert "Ada" in other.text
        assert [one.text for one in other.root.all("mark")] == ["Ada (対象)"]
        hers = page.form("/ui/review/answer")["item"]
        taken = second.send(other, "/ui/review/answer", {"item": hers, "verdict": "skip"})
        assert "ほかの担当者が確認中" in taken.text
        assert first.send(page, "/ui/review/leave").heading == "Review"
        assert second.get("/ui/review").heading == "レビュー"
        assert "学習できる項目はありません" in second.get("/ui/review/learn").text
        assert second.get("/ui/review/item", number=99).status == 404


def test_spans_are_parts_of_the_text() -> None:
    relation = Example.of_relation(["Ada", "has", "met", "Bob", "Smith", "."], Span(3, 5), Span(0, 1))
    assert [(part.text, part.span) for part in segments(relation)] == [
        ("Ada", "tail"),
        ("has met", ""),
        ("Bob Smith", "head"),
        (".", ""),
    ]
