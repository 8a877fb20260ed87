"""The first pages: what they show, in each language, and of names that would be code in a page."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conpet import ConPET, Prediction, Task
from conpet.commands.accuracy_history import Point
from conpet.dashboard.pages import try_it
from conpet.data import Example, Kind
from conpet.serve.background import Background
from conpet.testing import Trial, tiny_settings, toy_stream
from conpet.types import Candidate
from tests.helpers.dashboard import SHOWN, Browser, Element
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, _ = stream()
NAME = "<script>alert(1)</script>\"'&/?#%41 日本"
LABELS = ('"><img src=x onerror=alert(1)>', "b' onclick='alert(1)")
PAGES = (
    "/ui/overview",
    "/ui/try",
    "/ui/tasks",
    f"/ui/tasks/task?name={FIRST.name}",
    f"/ui/tasks/task?name={FIRST.name}&view=confusions",
    f"/ui/tasks/task?name={FIRST.name}&view=versions",
    f"/ui/tasks/rename?label={FIRST.labels[0]}",
    f"/ui/tasks/retire?label={FIRST.labels[0]}",
    f"/ui/tasks/split?label={FIRST.labels[0]}",
    f"/ui/tasks/remove?name={FIRST.name}",
    "/ui/tasks/learn",
    "/ui/tasks/consolidate",
    "/ui/nothing",
)
LATIN = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}")
NOT_WORDS = {"conpet keys create", "conpet forget", "log-predictions hash", "JSON Lines"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose workspace has two tasks, an odd one, and recorded answers."""
    learner = workspace(tmp_path_factory.mktemp("pages"), 2)
    odd = toy_stream(3, 2, 8, 2, 4)[2]
    renamed = dict(zip(odd.labels, LABELS, strict=True))
    learner.learn(
        Task(NAME, *(tuple(one.labelled(renamed[str(one.label)]) for one in rows) for rows in _subsets(odd))),
        gate=False,
    )
    with served(learner.path, log_predictions="text") as running:
        asked = [one.text for one in (*FIRST.test, *SECOND.test)]
        running.predict(asked)
        wait_for(lambda: learner.prediction_log.total() == len(asked))
        browser = Browser(running)
        wait_for(lambda: "Accuracy over time" in browser.get("/ui/overview").text)  # it is computed beside the pages
        yield running


def _subsets(task: Task) -> tuple[tuple[Example, ...], ...]:
    return (task.train, task.validation, task.test)


def texts(element: Element) -> Iterator[str]:
    """Yield the texts that people read in an element, without those that are in English on purpose."""
    if element.attributes.get("lang") == "en" or element.attributes.get("translate") == "no":
        return
    if element.tag in ("script", "style", "code", "pre"):
        return
    yield from (element.attributes[name] for name in SHOWN if name in element.attributes)
    for part in element.parts:
        if isinstance(part, Element):
            yield from texts(part)
        else:
            yield part


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_left_in_english_on_japanese_pages(server: Served, path: str) -> None:
    page = Browser(server, "ja").get(path)
    assert page.root.all("html", lang="ja")
    names = [name for pair in server.context.serving.live.snapshot.owners.items() for name in pair]
    for text in texts(page.root):
        for name in sorted((*names, *NOT_WORDS), key=len, reverse=True):
            text = text.replace(name, "")
        assert not LATIN.search(text), text


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_one_heading_labelled_fields_and_a_table_of_every_chart(server: Served, path: str) -> None:
    page = Browser(server).get(path)
    assert len(page.root.all("h1")) == 1
    labelled = {one.attributes.get("for") for one in page.root.all("label")}
    inside = [field for one in page.root.all("label") for field in one.every()]
    for field in (one for one in page.root.every() if one.tag in ("input", "select", "textarea")):
        named = field.attributes.get("id") in labelled or field in inside or "aria-labelledby" in field.attributes
        assert named or field.attributes.get("type") == "hidden"
    for table in page.root.all("table"):
        assert table.all("caption")
        assert all("scope" in head.attributes for head in table.all("th"))
    for chart in page.root.all("figure"):
        assert chart.all("table")
        (drawing,) = chart.all("img")
        assert drawing.attributes["alt"]
        answer = server.client.get(drawing.attributes["src"])
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.text.startswith("<svg ")


def test_the_overview_says_whether_all_is_well(server: Served) -> None:
    browser = Browser(server)
    page = browser.get("/ui/overview")
    fell = "Earlier tasks have lost" in page.text
    assert ("It works, but something needs a look." if fell else "All is well.") in page.text
    assert "Tasks 3 6 labels" in page.text
    assert "of 24 test examples" in page.text
    rows = page.rows("Tasks with the most answers in the last 30 days")
    assert sum(int(row[1]) for row in rows) == 16
    assert len(page.rows("Accuracy after each change")) == 3
    server.context.serving._problem = "broken"
    try:
        page = browser.get("/ui/overview")
    finally:
        server.context.serving._problem = ""
    assert "Something is wrong and needs attention." in page.text
    assert "cannot be loaded" in page.text


def test_what_is_not_computed_yet_is_not_called_well(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slow() -> tuple[Point, ...]:
        released.wait(60)
        return ()

    monkeypatch.setattr(server.context, "accuracy", Background(slow, 1.0))
    try:
        page = Browser(server).get("/ui/overview")
    finally:
        released.set()
    assert "Nothing wrong is known so far." in page.text
    assert "Accuracy and alarms are still being computed. This page reloads automatically." in page.text
    assert page.root.all("meta", http_equiv="refresh")  # without scripts
    assert page.root.all("section", hx_get="/ui/overview")


def test_names_and_texts_that_look_like_code_are_shown_as_they_are(server: Served) -> None:
    browser = Browser(server)
    listed = browser.get("/ui/tasks")
    (link,) = [one for one in listed.root.all("a") if one.text == NAME]
    for path in ("", "&view=examples", "&view=confusions", "&view=versions"):
        page = browser.get(link.attributes["href"] + path)
        assert (page.status, page.heading) == (200, " ".join(NAME.split()))
        assert not page.root.all("img", src="x")
        assert all(one.attributes.get("src", "").startswith("/ui/static/") for one in page.root.all("script"))
        assert not [one for one in page.root.every() if any(name.startswith("on") for name in one.attributes)]
    (rename,) = [
        one for one in browser.get(link.attributes["href"]).root.all("a") if one.text == "Rename" and "img" in str(one)
    ]
    assert browser.get(rename.attributes["href"]).heading == f"Rename the label “{LABELS[0]}”"
    chart = browser.get(link.attributes["href"]).root.all("img")
    drawing = server.client.get("/ui/overview/accuracy.svg").text
    assert "<script" not in drawing
    assert "&lt;script&gt;" in drawing
    assert chart == []  # it was measured once
    tried = browser.send(browser.get("/ui/try"), "/ui/try", {"text": "<b>bold</b> & more"})
    assert tried.root.all("textarea")[0].text == "<b>bold</b> & more"
    assert not tried.root.all("b")


def test_an_input_is_tried_and_its_answer_explained(server: Served) -> None:
    browser = Browser(server)
    page = browser.get("/ui/try")
    assert "Type something first." in browser.send(page, "/ui/try", {"text": " "}).text
    example = FIRST.test[0]
    tried = browser.send(page, "/ui/try", {"text": example.text})
    best = tried.rows("Likeliest labels")
    answer = server.predict(example.text, top_n=5, explain=True).json()["predictions"][0]
    assert (best[0][0], best[0][3], len(best)) == (answer["label"], answer["task"], 5)
    assert best[0][1] == f"{100 * answer['score']:.1f}%"
    ranking = tried.rows("What the selector thinks")
    assert [row[0] for row in ranking] == [one["task"] for one in answer["explanation"]["ranking"]]
    nearest = tried.rows("The stored examples most like it")
    assert nearest[0][0] == answer["explanation"]["nearest"][0]["example"]["text"]
    assert "version 1 · generation 4" in tried.text
    long = browser.send(page, "/ui/try", {"text": "x" * 30_000})
    assert (long.status, "at most 20,000" in long.text) == (422, True)
    number = tried.form("/ui/review/report")["request_id"]
    wait_for(lambda: bool(server.context.recorder.predictions.entries(request=number)))
    reported = browser.send(tried, "/ui/review/report", {"label": FIRST.labels[1]})
    assert reported.status == 200


def test_a_question_with_one_candidate_names_no_others(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = server.context.opened().predict([FIRST.test[0].text], explain=True)
    candidate = Candidate(FIRST.labels[0], 0.6, FIRST.name)

    async def answered(*_: object, **__: object) -> list[Prediction]:
        return [replace(found, decision="ask", candidates=(candidate,))]

    monkeypatch.setattr(try_it, "answer", answered)
    browser = Browser(server)
    page = browser.send(browser.get("/ui/try"), "/ui/try", {"text": "a text"})
    assert f"Probably {FIRST.labels[0]}, but not surely enough" in page.text
    assert "one of these" not in page.text
    assert "not whether the input belongs to any" in page.text


def test_spans_are_marked_by_the_numbers_of_their_words(tmp_path: Path) -> None:
    learner = Trial(tmp_path, tiny_settings()).workspace()
    for kind in (Kind.TEXT, Kind.RELATION, Kind.TYPING):
        (task,) = toy_stream(1, 2, 4, 1, 2, kind=kind)
        prefixed = [tuple(one.labelled(f"{kind} {one.label}") for one in rows) for rows in _subsets(task)]
        learner.learn(Task(str(kind), *prefixed), gate=False)
    with served(learner.path) as running:
        browser = Browser(running)
        page = browser.get("/ui/try")
        assert len(page.root.all("input", type="radio")) == 3
        fields = {"kind": "relation", "text": "Ada was born in London"}
        unmarked = browser.send(page, "/ui/try", fields)
        assert "Mark the words first" in unmarked.text
        marked = {"head_from": "1", "tail_from": "5", "tail_to": "5"}
        tried = browser.send(page, "/ui/try", {**fields, **marked})
        assert tried.rows("Likeliest labels")[0][3] == "relation"
        wrong = browser.send(page, "/ui/try", {**fields, **marked, "tail_from": "6"})
        assert (wrong.status, "from 1 to 5" in wrong.text) == (422, True)
        mention = {"kind": "typing", "text": "in Great Britain", "mention_from": "2", "mention_to": "3"}
        assert browser.send(page, "/ui/try", mention).rows("Likeliest labels")[0][3] == "typing"


def test_lists_have_pages(tmp_path: Path) -> None:
    learner: ConPET = Trial(tmp_path, tiny_settings(training={"epochs": 1, "max_steps": 1})).workspace()
    learner.learn_batch(toy_stream(55, 2, 2, 1, 1), evaluate=False, gate=False)
    with served(learner.path) as running:
        browser = Browser(running)
        first, second = browser.get("/ui/tasks"), browser.get("/ui/tasks", page=2)
        names = [row[0] for row in (*first.rows("55 tasks"), *second.rows("55 tasks"))]
        assert names == [task.name for task in learner.tasks]
        (after,) = first.root.all("a", rel="next")
        assert browser.get(after.attributes["href"]).text == second.text
        assert len(browser.get("/ui/tasks", page=99).rows("55 tasks")) == 5
        wait_for(lambda: "Accuracy is not known" in browser.get("/ui/overview").text)
