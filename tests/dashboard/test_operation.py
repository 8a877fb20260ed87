"""The pages for those who run the server: routing, alarms, jobs, audit, cost, settings, keys."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet import ConPET, Example, Prediction
from conpet.commands.audit import verify_export
from conpet.config.describe import describe_settings
from conpet.dashboard.setting_meanings import SERVER, WORKSPACE
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import JobKind, JobRequest, JobState
from conpet.serve.keys import KeyStore, Role
from conpet.serve.settings import ServeSettings
from conpet.types import Decision
from tests.helpers.dashboard import Browser, Page
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

TASKS = stream()
PAGES = (
    *("routing", "routing?days=7", "alarms", "jobs", "audit", "audit/changes/2", "audit/actions"),
    *("audit/predictions", "audit/predictions/1", "audit/verify", "cost", "settings", "keys"),
)
DAYS_AGO = 3


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    made = workspace(tmp_path_factory.mktemp("operation"), 2)
    made.set_costs(prices={"cpu_hour": 3600.0, "currency": "EUR"})
    made.set_log("text")
    record(made, "text-0", "answer", 30)
    record(made, "text-1", "decline", 10, "<b>bold</b> & a secret")
    return made


@pytest.fixture(scope="module")
def server(ws: ConPET) -> Iterator[Served]:
    with served(ws.path, watch_reference=50) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Served) -> Browser:
    return Browser(server)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Browser]:
    with served(workspace(tmp_path, 1).path) as running:
        yield Browser(running)


def record(made: ConPET, task: str, decision: Decision, number: int, text: str = "a text") -> None:
    """Record answers of some days ago."""
    label = next(label for label, owner in made.owners.items() if owner == task)
    confidence = 0.25 if decision == "decline" else 0.75
    generation = made.store.generation()
    one = Prediction(label, 0.8, task, 1, generation=generation, decision=decision, confidence=confidence)
    at = (datetime.now(UTC) - timedelta(days=DAYS_AGO)).timestamp()
    log = made.prediction_log
    log.append(log.rows(f"of {task}", [Example.of_text(text)] * number, [one] * number, with_text=True, at=at))


def figures(page: Page) -> dict[str, str]:
    """Return the key figures of a page."""
    cards = page.root.all("div", class_="card")
    return {card.all("dt")[0].text: card.all("dd")[0].text for card in cards}


def test_routing_shows_which_tasks_answered_and_how(browser: Browser) -> None:
    page = browser.get("/ui/routing")
    assert figures(page) == {"Answers": "40", "Declined": "25.0%", "Asked back": "0.0%", "Mean confidence": "62.5%"}
    rows = page.rows("Tasks by number of answers")
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("text-0", "30", "75.0%", "0.0%"),
        ("text-1", "10", "25.0%", "100.0%"),
    ]
    by_day = page.rows("Answers by day and task")
    assert len(by_day) == 30
    assert [row[1:] for row in by_day if row[1:] != ["0", "0"]] == [["30", "10"]]
    for image in page.root.all("img", class_="plot"):
        drawn = browser.client.get(image.attributes["src"])
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/svg+xml")
        assert drawn.text.startswith("<svg ")
    one = browser.get("/ui/routing", task="text-1", days=7)
    assert figures(one)["Declined"] == "100.0%"
    assert one.heading == "Routing: text-1"
    assert [row[0] for row in browser.get("/ui/routing", q="text-0").rows("Tasks by number of answers")] == ["text-0"]
    assert browser.get("/ui/routing", days=8).status == 422


def test_without_a_record_pages_say_how_to_begin(empty: Browser) -> None:
    for path in ("routing", "alarms", "audit/predictions"):
        assert "--log-predictions hash" in empty.get(f"/ui/{path}").text
    assert "There were no jobs yet" in empty.get("/ui/jobs").text
    wait_for(lambda: "No prices are set" in empty.get("/ui/cost").text)
    assert "There are no keys yet" in empty.get("/ui/keys").text
    assert empty.get("/ui/audit/predictions/1").status == 409


def test_before_the_first_recorded_answer_pages_know_that_answers_are_recorded(tmp_path: Path) -> None:
    made = workspace(tmp_path, 1)
    made.set_log("text")
    with served(made.path) as running:
        browser = Browser(running)
        for path in ("overview", "routing", "alarms", "audit/predictions"):
            assert "--log-predictions" not in browser.get(f"/ui/{path}").text, path
        assert "recorded from now on" in browser.get("/ui/alarms").text
        assert "recorded so far" in browser.get("/ui/alarms/restart").text


def test_an_alarm_says_what_changed_and_watching_can_begin_anew(tmp_path: Path) -> None:
    ws = workspace(tmp_path, 2)
    ws.set_log("hash")
    with served(ws.path, watch_reference=50) as server:
        browser = Browser(server)
        for task, number in ((0, 80), (1, 300)):
            texts = [example.text for example in TASKS[task].test]
            server.predict([texts[at % len(texts)] for at in range(number)])
        wait_for(lambda: ws.prediction_log.total() == 380)
        wait_for(lambda: "alarms" in browser.get("/ui/alarms").text)
        page = browser.get("/ui/alarms")
        shares = page.rows("Shares of tasks")
        assert {row[0] for row in shares} == {"Share of the task “text-0”", "Share of the task “text-1”"}
        assert "Look at recent inputs of this task" in page.text
        assert "There were none." in page.text
        assert page.rows("Signals without an alarm")
        question = browser.get("/ui/alarms/restart")
        done = browser.send(question, "/ui/alarms/restart")
        assert "Watching has begun anew." in done.text
        wait_for(lambda: "No alarm." in browser.get("/ui/alarms").text)
        former = browser.get("/ui/alarms").rows("Alarms before the last change, or before watching began anew")
        assert {row[1] for row in former} >= {row[0] for row in shares}


def test_jobs_are_listed_by_state_with_a_link_to_each(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    queue = JobQueue(folder, 10)
    done = queue.submit(JobRequest(JobKind.ACTIVATE, {"version": 1}, ("text-0",)))
    assert queue.claim() == queue.get(done.id)
    queue.finish(done.id, JobState.SUCCEEDED, result={})
    last = queue.cancel(queue.submit(JobRequest(JobKind.REMOVE, {}, ("text-1", "<b>"))).id)
    with served(folder) as server:
        browser = Browser(server)
        page = browser.get("/ui/jobs")
        rows = page.rows("Jobs, the newest first")
        assert [row[1:4] for row in rows] == [
            ["Remove a task", "text-1, <b>", "! Cancelled"],
            ["Roll back to another version", "text-0 version 1", "✓ Done"],
        ]
        assert [link.text for link in page.root.all("a", href=f"/ui/jobs/{done.id}")] == [rows[1][1]]
        only = browser.get("/ui/jobs", state="succeeded").rows("Jobs, the newest first")
        assert [row[2] for row in only] == ["text-0 version 1"]
        assert browser.get("/ui/jobs", state="odd").status == 422
        older = browser.get("/ui/jobs", before=last.id).rows("Jobs, the newest first")
        assert [row[2] for row in older] == ["text-0 version 1"]


def test_the_history_is_searched_exported_and_verified(browser: Browser, ws: ConPET, tmp_path: Path) -> None:
    page = browser.get("/ui/audit")
    events = ws.store.events()
    assert len(page.rows("Changes, the newest first")) == len(events)
    found = browser.get("/ui/audit", q="learn text-1").rows("Changes, the newest first")
    assert [(row[0], row[3]) for row in found] == [("3", "text-1 version 1")]
    assert "No change is like that" in browser.get("/ui/audit", q="nobody did this").text
    assert events[2].digest in browser.get("/ui/audit/changes/3").text
    assert browser.get("/ui/audit/changes/99").status == 404
    file = tmp_path / "history.jsonl"
    file.write_bytes(browser.client.get("/ui/audit/export").content)
    assert verify_export(file) == []
    assert len(file.read_text(encoding="utf-8").splitlines()) == len(events)
    started = browser.send(browser.get("/ui/audit/verify"), "/ui/audit/verify")
    wait_for(lambda: "Everything is as it was recorded." in browser.get(started.path).text)


def test_a_change_of_a_recorded_prediction_is_found(tmp_path: Path) -> None:
    ws = workspace(tmp_path, 2)
    record(ws, "text-0", "answer", 2)
    with closing(sqlite3.connect(ws.prediction_log.file)) as raw, raw:
        raw.execute("UPDATE prediction SET score = 0.1 WHERE id = 2")
    with served(ws.path) as server:
        browser = Browser(server)
        started = browser.send(browser.get("/ui/audit/verify"), "/ui/audit/verify")
        wait_for(lambda: "prediction 2" in browser.get(started.path).text)
        assert "1 difference from what was recorded" in browser.get(started.path).text


def test_a_recorded_prediction_is_found_and_traced(browser: Browser) -> None:
    caption = "Recorded predictions, the newest first"
    assert len(browser.get("/ui/audit/predictions").rows(caption)) == 40
    declined = browser.get("/ui/audit/predictions", decision="decline", task="text-1", since="7d").rows(caption)
    assert len(declined) == 10
    assert declined[0][-1] == "<b>bold</b> & a secret"
    assert "No recorded prediction is like that" in browser.get("/ui/audit/predictions", since="24h").text
    assert browser.get("/ui/audit/predictions", since="soon").status == 422
    older = browser.get("/ui/audit/predictions", before=31).rows(caption)
    assert {row[5] for row in older} == {"text-0"}
    entry = browser.get("/ui/audit/predictions/40")
    assert "<b>bold</b> & a secret" in entry.text
    assert "Stored examples of the label" in entry.text
    assert browser.get("/ui/audit/predictions/41").status == 404
    page = browser.get("/ui/audit/predictions")
    for wanted in ("<b>bold</b> & a secret", "of text-1"):
        found = browser.send(page, "/ui/audit/find", {"wanted": wanted})
        assert len(found.rows("Recorded answers")) == 10
    assert "is recorded" in browser.send(page, "/ui/audit/find", {"wanted": "never asked"}).text


def test_costs_are_shown_by_task_against_other_ways_and_with_prices(browser: Browser, ws: ConPET) -> None:
    wait_for(lambda: "By task" in browser.get("/ui/cost").text)
    page = browser.get("/ui/cost")
    assert {row[0] for row in page.rows("Cost by task, the highest first")} == {"text-0", "text-1"}
    assert figures(page)["Spent in all"].startswith("€")
    assert [row[0] for row in page.rows("What other ways would have needed")] == [
        *("Learning everything anew each time", "A model of its own for each task, nothing shared"),
    ]
    prices = {row[0]: row[1] for row in page.rows("Prices in EUR")}
    assert prices["An hour of a processor core"] == "€3,600.00"
    assert prices["A wrong answer"] == "not set: counts as 0"
    assert len(page.rows("Versions of the workspace, the newest first")) == 2


def test_costs_are_those_after_the_last_change(tmp_path: Path) -> None:
    made = workspace(tmp_path, 1)
    with served(made.path) as running:
        browser = Browser(running)
        wait_for(lambda: "Cost by kind of operation" in browser.get("/ui/cost").text)
        made.learn(TASKS[1])
        shown = browser.get("/ui/cost")
        if TASKS[1].name not in shown.text:
            assert "This page reloads automatically" in shown.text
            assert shown.root.all("meta", http_equiv="refresh")
        wait_for(lambda: TASKS[1].name in browser.get("/ui/cost").text)


def test_every_setting_is_shown_with_its_meaning(browser: Browser) -> None:
    assert set(SERVER) == set(ServeSettings.model_fields)
    assert set(WORKSPACE) == {row.name for row in describe_settings()}
    page = browser.get("/ui/settings")
    log = {row[0]: row[1] for row in page.rows("Recorded predictions")}
    assert log == {"log.predictions": "text", "log.keep_days": "not set (default)"}
    own = {row[0]: row[1] for row in page.rows("Server")}
    assert own["watch_reference"] == "50"
    assert own["workers"] == "1 (default)"
    assert {row[0] for row in page.rows("Gate")} == {name for name in WORKSPACE if name.startswith("gate.")}


def test_the_address_of_the_webhook_is_not_shown(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    with served(folder, watch_seconds=60, watch_webhook="https://example.org/hook?token=s3cret") as server:
        page = Browser(server).get("/ui/settings")
    assert "s3cret" not in page.response.text
    assert "set; not shown here" in page.text


def test_keys_are_made_shown_once_and_revoked(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    with served(folder) as server:
        browser = Browser(server)
        page = browser.get("/ui/keys")
        refused = browser.send(page, "/ui/keys", {"name": "shop", "role": "predict"})
        assert (refused.status, "The first key must be one for operators" in refused.text) == (422, True)
        made = browser.send(page, "/ui/keys", {"name": "boss <i>", "role": "operate"})
        assert made.response.headers["cache-control"] == "no-store"
        (key,) = re.findall(r"conpet_\w{12}_[\w-]+", made.response.text)
        assert "Please sign in" in browser.get("/ui/keys").heading
        assert server.client.get("/v1/tasks").status_code == 401
        browser.sign_in(key)
        page = browser.get("/ui/keys")
        assert key not in page.response.text
        assert page.rows("Keys, the newest first")[0][0].startswith("boss <i>")
        for wrong in ({"role": "all"}, {"role": "predict", "name": "x" * 101}):
            assert browser.send(page, "/ui/keys", wrong).status == 422
        assert browser.send(page, "/ui/keys", {"role": "predict", "name": " "}).status == 422  # it needs a name
        made = browser.send(page, "/ui/keys", {"name": "shop", "role": "predict"})
        assert made.root.all("button", data_copy="key")
        again = browser.send(page, "/ui/keys", {"name": "shop", "role": "predict"})  # the page was reloaded
        assert "The key “shop” was made already" in again.text
        assert len(again.rows("Keys, the newest first")) == 2
        (other,) = re.findall(r"conpet_\w{12}_[\w-]+", made.response.text)
        headers = {"Authorization": f"Bearer {other}"}
        assert server.client.get("/v1/tasks", headers=headers).status_code == 200
        address = f"/ui/keys/{other.split('_')[1]}/revoke"
        question = browser.get(address)
        assert "is refused from now on" in question.text
        assert "last key" not in question.text
        done = browser.send(question, address)
        assert "The key “shop” is revoked." in done.text
        assert server.client.get("/v1/tasks", headers=headers).status_code == 401
        assert Browser(server).sign_in("conpet_wrong").status == 401
        told = browser.get("/ui/audit/actions").rows("Actions, the newest first")
        assert [(row[2], row[3], row[4]) for row in told] == [
            ("Wrong key refused", "", "address 127.0.0.1"),
            ("Key revoked", "shop · may ask", "boss <i>"),
            ("Key made", "shop · may ask", "boss <i>"),
            ("Signed in", "", "boss <i>"),
            ("Key made", "boss <i> · may do everything", "127.0.0.1"),
        ]
        assert len(browser.get("/ui/audit/actions?q=shop").rows("Actions, the newest first")) == 2
        assert browser.get("/ui/audit/export").response.text.count('"chain": "actions"') == len(told)
        own = browser.get(f"/ui/keys/{key.split('_')[1]}/revoke")
        assert "and will be signed out" in own.text
        assert "This is the last key for operators." in own.text
        assert browser.get("/ui/keys/none/revoke").status == 404


def test_only_those_who_may_see_a_page(tmp_path: Path, ws: ConPET) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    keys = {role: store.create(role)[0] for role in Role}
    allowed = {Role.PREDICT: {"routing"}, Role.LEARN: {"routing", "jobs"}, Role.OPERATE: set(PAGES)}
    with served(ws.path, keys_file=store.file) as server:
        for role, key in keys.items():
            browser = Browser(server)
            browser.sign_in(key)
            for path in ("routing", "jobs", "alarms", "audit", "audit/export", "cost", "settings", "keys"):
                wanted = 200 if path in allowed[role] or role is Role.OPERATE else 403
                assert browser.get(f"/ui/{path}").status == wanted, (role, path)
            refused = browser.post("/ui/keys", {"role": "operate"})
            assert refused.status == 403  # without the token of a form, whatever the role


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_in_japanese(server: Served, path: str) -> None:
    browser = Browser(server, "ja")
    wait_for(lambda: "自動的に再読み込み" not in browser.get(f"/ui/{path}").text)
    page = browser.get(f"/ui/{path}")
    assert page.status == 200
    assert re.search(r"[ぁ-ん]", page.text)
    (main,) = page.root.all("main")
    english = re.findall(r"\b(?:the|of|and|is|are|all|with|by|for)\b", native(main))
    assert english == []


def native(element: object) -> str:
    """Return the text of an element without what is not for translation: names, commands, foreign words."""
    if isinstance(element, str):
        return element
    attributes = element.attributes  # type: ignore[attr-defined]
    if attributes.get("lang") == "en" or "code" in attributes.get("class", "") or element.tag in ("blockquote", "pre"):  # type: ignore[attr-defined]
        return ""
    if "text" in attributes.get("class", "").split():
        return ""
    return " ".join(native(part) for part in element.parts)  # type: ignore[attr-defined]
