"""Changes by pages: from an upload to a version that answers, and back; and what the gate refuses."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest

from conpet import Example, Task
from conpet.dashboard.pages import split
from conpet.serve.keys import KeyStore, Role
from tests.helpers.dashboard import Browser, Page
from tests.helpers.gate import BROKEN, harmful, learned
from tests.helpers.serve import Served, served
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, _ = stream()
SECONDS = 180


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(workspace(tmp_path_factory.mktemp("changes"), 1).path) as running:
        yield running


@pytest.fixture
def browser(server: Served) -> Browser:
    return Browser(server)


def ended(browser: Browser, page: Page) -> Page:
    """Return the page of a job when it has ended, and its result answers."""
    assert page.path.startswith("/ui/jobs/"), page.text
    deadline = time.monotonic() + SECONDS
    while "Ended" not in page.text:
        assert time.monotonic() < deadline, page.text
        time.sleep(0.1)
        page = browser.get(page.path)
    return page


def waited(server: Served, page: Page) -> None:
    """Wait until what a job has done answers."""
    job = server.context.jobs.get(page.path.rpartition("/")[2])
    assert job.result is not None, job.error
    server.predict("a", min_generation=job.result["generation"])


def as_csv(task: object, more: str = "") -> bytes:
    rows = [f"{one.text},{one.label}\n" for one in task.train]  # type: ignore[attr-defined]
    return ("text,label\n" + "".join(rows) + more).encode()


def test_a_file_is_checked_learned_changed_and_rolled_back(server: Served, browser: Browser) -> None:
    one, other = SECOND.train[0], SECOND.train[-1]
    content = as_csv(SECOND, f"{one.text},{one.label}\n{one.text},{other.label}\n<b>&amp,{one.label}\n")
    form = browser.get("/ui/tasks/learn")
    checked = browser.send(form, "/ui/tasks/learn", {"kind": "task", "name": "<i>cards"}, {"file": ("a.csv", content)})
    assert (checked.status, checked.heading) == (200, "Check before “<i>cards” is learned")
    assert "The same input with different labels (1)" in checked.text
    (pair,) = checked.rows("The same input with different labels")
    assert one.text in pair[1]
    assert (one.label in pair[1]) != (one.label in pair[2])  # side by side
    boxes = checked.root.all("input", name="drop")
    keys = [box.attributes["value"] for box in boxes if "checked" in box.attributes]
    assert keys
    shown = [box.attributes["value"] for box in checked.root.all("input", name="shown")]
    job = browser.send(checked, checked.path, {"drop": keys, "shown": shown, "correct": "yes"})
    done = ended(browser, job)
    assert "✓ Done" in done.text
    assert done.rows("What was changed")[0][:2] == ["<i>cards", "1"]
    assert "Gate passed" in done.text
    waited(server, done)

    listed = browser.get("/ui/tasks")
    assert [row[0] for row in listed.rows("2 tasks")] == [FIRST.name, "<i>cards"]
    assert browser.get("/ui/tasks", q="cards").rows("1 task")[0][1] == str(len(SECOND.labels))
    label = SECOND.labels[0]
    asked = browser.get("/ui/tasks/rename", label=label)
    assert "The task gets a new version." in asked.text
    taken = browser.send(asked, "/ui/tasks/rename", {"name": FIRST.labels[0]})
    assert (taken.status, f"in task {FIRST.name}" in taken.text) == (422, True)
    fields = {**asked.form("/ui/tasks/rename"), "name": "<script>renamed"}
    first, again = (browser.post("/ui/tasks/rename", fields) for _ in range(2))
    assert first.path == again.path  # sent twice, done once
    renaming = ended(browser, first)
    assert f"“{label}” becomes “<script>renamed”" in renaming.text
    waited(server, renaming)
    page = browser.get("/ui/tasks/task", name="<i>cards")
    names = [row[0] for row in page.rows("Labels, measured on test examples among the labels of all tasks")]
    assert "<script>renamed" in names
    assert not [one for one in page.root.all("script") if "src" not in one.attributes]
    versions = browser.get("/ui/tasks/task", name="<i>cards", view="versions").rows("2 versions")
    assert [(row[0], row[4]) for row in versions] == [
        ("2", f"+ <script>renamed − {label}"),
        ("1", "the first version kept"),
    ]
    assert "version 1 instead of version 2" in browser.get("/ui/tasks/activate", name="<i>cards", version=1).text
    back = browser.get("/ui/tasks/activate", name="<i>cards", version=1)
    waited(server, ended(browser, browser.send(back, "/ui/tasks/activate")))
    texts = browser.get("/ui/tasks/task", name="<i>cards", view="examples", q="<b>").rows("1 stored example")
    assert texts[0][0] == "<b>&amp"

    events = server.context.opened().store.history(limit=3)
    assert [(event.verb, event.actor) for event in events] == [
        ("rollback", "key 127.0.0.1"),
        ("rename", "key 127.0.0.1"),
        ("learn", "key 127.0.0.1"),
    ]
    removed = browser.get("/ui/tasks/remove", name="<i>cards")
    waited(server, ended(browser, browser.send(removed, "/ui/tasks/remove")))
    assert browser.get("/ui/tasks/task", name="<i>cards").status == 404


def test_a_label_is_split_and_retired(server: Served, browser: Browser) -> None:
    label = FIRST.labels[0]
    named = browser.get("/ui/tasks/split", label=label)
    assert "First, name these" in named.text
    taken = browser.get("/ui/tasks/split", label=label, finer=["x", FIRST.labels[1]])
    assert (taken.status, "of this name already" in taken.text) == (422, True)
    same = browser.get("/ui/tasks/split", label=label, finer=["x", " x"])
    assert "Give two different names or more." in same.text
    form = browser.get("/ui/tasks/split", label=label, finer=["x", "y", ""])
    number = len(form.rows("Choose a finer label for each stored example"))
    assert number == 8 + 2 + 4
    fields = {"finer": ["x", "y"], "rest": "=x", **{f"row-{place}": "" for place in range(number)}}
    one_sided = browser.send(form, "/ui/tasks/split", fields)
    assert "at least one example to each" in one_sided.text
    assert len(one_sided.root.all("option", value="=x", selected="")) == 1  # what was chosen stays
    fields |= {f"row-{place}": "=y" for place in range(0, number, 2)} | {"row-1": "drop"}
    done = ended(browser, browser.send(form, "/ui/tasks/split", fields))
    waited(server, done)
    assert {"x", "y"} <= set(server.context.serving.live.snapshot.owners)
    retired = browser.get("/ui/tasks/retire", label="y")
    assert "This cannot be undone" in retired.text
    waited(server, ended(browser, browser.send(retired, "/ui/tasks/retire")))
    assert "y" not in server.context.serving.live.snapshot.owners
    assert browser.get("/ui/tasks/retire", label="nothing").status == 404


def test_a_label_is_split_by_a_table_that_was_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_SORTED", 5)
    texts = ["=1+2", "カードを失くした", *(f"I have lost, {number}" for number in range(8))]
    rows = [Example.of_text(text, label="lost") for text in texts]
    rows += [Example.of_text(f"found it {number}", label="found") for number in range(8)]
    learner = workspace(tmp_path, 1)
    learner.learn(Task("things", rows, (), ()), gate=False, evaluate=False)
    with served(learner.path) as running:
        browser = Browser(running)
        form = browser.get("/ui/tasks/split", label="lost")
        assert "Download 10 examples (CSV)" in form.text
        downloaded = browser.get("/ui/tasks/split.csv", label="lost").response.content.decode("utf-8-sig")
        table = list(csv.reader(io.StringIO(downloaded)))
        assert table[0] == ["number", "text", "label"]
        assert {row[1] for row in table[1:]} == {"'=1+2", *texts[1:]}
        action = "/ui/tasks/split/file"

        def sent(rows: list[list[str]], encoding: str, separator: str = ",") -> Page:
            written = io.StringIO()
            csv.writer(written, delimiter=separator).writerows(rows)
            return browser.send(form, action, files={"file": ("split.csv", written.getvalue().encode(encoding))})

        assert "Write two or more finer labels" in sent(table, "utf-8-sig").text
        filled = [[number, text, "紛失" if place % 2 else "盗難"] for place, (number, text, _) in enumerate(table[1:])]
        filled = [table[0], *filled]
        assert "is none of the examples" in sent([*filled, ["11", "another", "x"]], "utf-8").text
        assert "needs the columns" in browser.send(form, action, files={"file": ("a.csv", b"PK\x03\x04")}).text
        filled[-1][2] = ""
        asked = sent([filled[0], *reversed(filled[1:])], "cp932", ";")
        assert "“盗難” gets 5 examples." in asked.text
        assert "“紛失” gets 4 examples." in asked.text
        assert "1 example has no finer label" in asked.text
        waited(running, ended(browser, browser.send(asked, asked.path)))
        assert {"盗難", "紛失"} <= set(running.context.serving.live.snapshot.owners)
        assert browser.get("/ui/tasks/split", label="lost").status == 404


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "The file “a.csv” is empty."),
        ("a.csv", b"text,label\n", "The file has errors."),
        ("a.csv", b"%PDF-1.7", "is no text, although its name says so"),
        ("a.docx", b"PK\x03\x04", "Files of the kind “.docx” cannot be read."),
        ("a.csv", b"text,label\nonly one label,lonely\nstill one,lonely\n", "a task needs two or more"),
        ("a.exe", b"MZ\x00\x01", "Files of the kind “.exe” cannot be read."),
        ("", b"", "Choose a file."),
    ],
)
def test_files_that_cannot_be_learned_are_refused_with_the_reason(
    browser: Browser, name: str, content: bytes, said: str
) -> None:
    form = browser.get("/ui/tasks/learn")
    fields = {"kind": "task", "name": ""}
    refused = browser.send(form, "/ui/tasks/learn", fields, {"file": (name, content)})
    assert not any(one.text == "Start learning" for one in refused.root.all("button"))
    assert said in refused.text
    assert "/jobs/data" not in refused.response.text  # no path of the server


def uploaded(browser: Browser, file: str, content: bytes, **fields: str) -> Page:
    form = browser.get("/ui/tasks/learn")
    given = {"kind": "task", "name": "calls"}
    return browser.send(form, "/ui/tasks/learn", {**given, **fields}, {"file": (file, content)})


def is_startable(page: Page) -> bool:
    return any(one.text == "Start learning" for one in page.root.all("button"))


def as_table(names: str, separator: str = ",") -> str:
    rows = [
        names,
        *(
            f"Müller möchte {word} {label}{separator}{label}"
            for label in ("calls-1", "calls-2")
            for word in ("gehen", "kommen", "essen")
        ),
    ]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("names", "encoding", "advised", "fields"),
    [
        ("text,label", "cp1252", "probably cp1252", {"encoding": "cp1252"}),
        ("Was,Wohin", "utf-8", "name the column of the text", {"text_column": "Was", "label_column": "Wohin"}),
    ],
)
def test_a_file_that_was_not_read_rightly_is_checked_again_in_another_way(
    browser: Browser, names: str, encoding: str, advised: str, fields: dict[str, str]
) -> None:
    content = as_table(names).encode(encoding)
    failed = uploaded(browser, "calls.csv", content)
    assert failed.text.count(advised) == 1  # what holds for the whole file is said once
    assert "--" not in failed.text  # no options of commands
    assert "Upload another file" in [one.text for one in failed.root.all("button")]
    assert not is_startable(failed)
    again = browser.send(failed, f"{failed.path}/read", fields)
    assert is_startable(again), again.text
    assert again.root.all("input", name="text_column")[0].attributes["value"] == fields.get("text_column", "")
    assert is_startable(uploaded(browser, "calls.csv", content, **fields))  # or at once


def test_another_sheet_of_a_workbook_is_chosen(browser: Browser) -> None:
    book = openpyxl.Workbook()
    for title, word in (("First", "one"), ("Second", "two")):
        book.create_sheet(title)
        for row in (["text", "label"], *([f"{word} {number}", f"{title}-{number % 2}"] for number in range(6))):
            book[title].append(row)
    book["Sheet"].append(["Prepared by Ann"])
    saved = io.BytesIO()
    book.save(saved)
    failed = uploaded(browser, "calls.xlsx", saved.getvalue())
    assert ("Sheet” is read" in failed.text, is_startable(failed)) == (True, False)
    assert "'First', 'Second'" in failed.text
    page = browser.send(failed, f"{failed.path}/read", {"sheet": "Second"})
    assert is_startable(page)
    job = browser.send(page, page.path, {"correct": "yes"})
    assert browser.send(page, page.path, {"correct": "yes"}).path == job.path  # after Back
    assert browser.get(page.path).path == job.path
    assert "calls" in ended(browser, job).text


def test_a_file_of_which_nothing_could_be_learned_is_not_offered_to_be_learned(
    server: Served, browser: Browser
) -> None:
    known = server.context.serving.live.snapshot.owners
    stored = "".join(f"{one.text},{one.label}\n" for one in FIRST.train if one.label in known)
    found = uploaded(browser, "again.csv", f"text,label\n{stored}".encode(), name="again")
    assert "The file has no row that could be learned." in found.text
    assert not is_startable(found)


def test_more_examples_go_to_the_tasks_of_their_labels(server: Served, browser: Browser) -> None:
    known = list(server.context.serving.live.snapshot.owners)[-1]
    owner = server.context.serving.live.snapshot.owners[known]
    content = f"text,label\nquite a new text,{known}\nand another one,{known}\n".encode()
    form = browser.get("/ui/tasks/learn", more="yes")
    checked = browser.send(form, "/ui/tasks/learn", {"kind": "more"}, {"file": ("a.csv", content)})
    done = ended(browser, browser.send(checked, checked.path))
    assert done.rows("What was changed")[0][0] == owner
    other = browser.send(form, "/ui/tasks/learn", {"kind": "more"}, {"file": ("a.csv", b"text,label\na,b\nc,d\n")})
    assert "become the task “a”" in other.text  # none of the labels is known
    discarded = browser.send(other, f"{other.path}/discard")
    assert (discarded.path, "discarded" in discarded.text) == ("/ui/tasks", True)


@pytest.mark.parametrize("kind", ["task", "more"])
def test_new_labels_in_a_file_with_known_ones_go_where_one_chooses(server: Served, browser: Browser, kind: str) -> None:
    known = next(label for label, owner in server.context.serving.live.snapshot.owners.items() if owner == FIRST.name)
    rows = [f"some text {kind} {number},{known}" for number in range(2)]
    rows += [f"other {name} text {number},{name} {kind}" for name in ("p", "q") for number in range(8)]
    content = "\n".join(["text,label", *rows]).encode()
    form = browser.get("/ui/tasks/learn")
    name = f"mixed {kind}"
    checked = browser.send(form, "/ui/tasks/learn", {"kind": kind, "name": name}, {"file": ("m.csv", content)})
    assert f"New: p {kind}, q {kind} (16 rows)." in checked.text
    assert f"The task “{FIRST.name}” gets a new version, with 2 rows of labels that it has." in checked.text
    assert "learn with" not in checked.text  # no options of commands
    taken = browser.send(checked, checked.path, {"where": "task", "name": FIRST.name})
    assert (taken.status, "There is a task of this name already" in taken.text) == (422, True)
    wanted = {"where": "task", "name": name} if kind == "task" else {"where": "into", "into": FIRST.name}
    done = ended(browser, browser.send(taken, taken.path, wanted))
    waited(server, done)
    changed = [row[0] for row in done.rows("What was changed")]
    owners = server.context.serving.live.snapshot.owners
    assert changed == ([FIRST.name, name] if kind == "task" else [FIRST.name])
    assert {owners[f"p {kind}"], owners[f"q {kind}"]} == {name if kind == "task" else FIRST.name}


def test_a_single_new_label_goes_into_a_known_task_or_is_left_out(tmp_path: Path) -> None:
    rows = [f"never said before,{FIRST.labels[0]}", f"or said elsewhere,{SECOND.labels[0]}"]
    content = "\n".join(["text,label", *rows, "nor this one,alone", "or that one,alone"]).encode()
    with served(workspace(tmp_path, 2).path) as running:
        browser = Browser(running)
        form = browser.get("/ui/tasks/learn")
        named = {"kind": "task", "name": SECOND.name}
        checked = browser.send(form, "/ui/tasks/learn", named, {"file": ("s.csv", content)})
        assert "has errors" not in checked.text  # to learn this task anew, the file would have no labels of others
        (into,) = checked.root.all("input", name="where", value="into")
        assert "checked" in into.attributes
        assert [one.text for one in checked.root.all("option", selected="")] == [SECOND.name]
        assert not checked.root.all("input", name="where", value="task")
        refused = browser.send(checked, checked.path, {"where": "task"})
        assert (refused.status, "only one new label" in refused.text) == (422, True)
        done = ended(browser, browser.send(refused, refused.path, {"where": "leave"}))
        waited(running, done)
        assert [row[0] for row in done.rows("What was changed")] == [FIRST.name, SECOND.name]
        assert "alone" not in running.context.serving.live.snapshot.owners


def test_what_the_gate_refuses_is_shown_and_can_be_made_anyway(tmp_path: Path) -> None:
    with served(learned(tmp_path).path) as running:
        browser = Browser(running)
        form = browser.get("/ui/tasks/learn")
        files = {"file": ("h.csv", as_csv(harmful()))}
        checked = browser.send(form, "/ui/tasks/learn", {"kind": "task", "name": "harmful"}, files)
        refused = ended(browser, browser.send(checked, checked.path, {"correct": "yes"}))
        assert "The gate stopped this change" in refused.text
        assert any(BROKEN in row[0] for row in refused.rows("What would get worse"))
        assert "The gate stopped the last change" in browser.get("/ui/overview").text
        assert "Stopped by the gate" in refused.text
        browser.send(refused, "/ui/candidates/1/discard")
        discarded = browser.get("/ui/audit/actions").rows("Actions, the newest first")[0]
        assert discarded[2:] == ["Refused change deleted", "Learned: harmful", "127.0.0.1"]
        checked = browser.send(form, "/ui/tasks/learn", {"kind": "task", "name": "harmful"}, files)
        refused = ended(browser, browser.send(checked, checked.path, {"correct": "yes"}))
        asked = browser.get("/ui/candidates/1/promote")
        assert re.search(r"by more than the margin: \d labels?, \d tasks?, all earlier labels together\.", asked.text)
        assert asked.rows("What would get worse") == refused.rows("What would get worse")
        made = ended(browser, browser.send(asked, "/ui/candidates/1/promote"))
        assert "Gate overruled" in made.text
        assert "Task: harmful" in made.text
        assert "made anyway, against the gate" in browser.get(refused.path).text
        states = [row[1:4] for row in browser.get("/ui/jobs").rows("Jobs, the newest first")]
        assert states == [
            ["Make a refused change", "harmful", "✓ Done"],
            *[["Learn a task", "harmful", "! Stopped by the gate"]] * 2,
        ]
        first = browser.get("/ui/jobs").root.all("th", scope="row")[-1].all("a")[0].attributes["href"]
        assert "or the change was discarded" in browser.get(first).text  # the number of its candidate was used again
        assert browser.get("/ui/audit").rows("Changes, the newest first")[0][2] == "Learned ! Gate overruled"
        waited(running, made)
        overview = browser.get("/ui/overview")
        assert "All is well" not in overview.text
        assert "A change was made although the gate refused it: Learned – harmful." in overview.text
        assert re.search(r"These got worse by more than the margin: \d labels?, \d tasks?, all earlier", overview.text)
        (way_back,) = [one for one in overview.root.all("a") if one.text == "Remove the task…"]
        asked = browser.get(way_back.attributes["href"])
        removed = ended(browser, browser.send(asked, "/ui/tasks/remove"))
        waited(running, removed)
        assert "Gate passed" in removed.text
        assert removed.rows("What was changed")[0][3] != "–"
        assert "although the gate refused it" not in browser.get("/ui/overview").text


def test_roles_hold_for_pages_and_forms(server: Served, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    keys = {role: store.create(role)[0] for role in Role}
    pages = {
        "/ui/tasks": Role.PREDICT,
        f"/ui/tasks/task?name={FIRST.name}&view=examples": Role.LEARN,
        "/ui/tasks/learn": Role.LEARN,
        f"/ui/tasks/remove?name={FIRST.name}": Role.OPERATE,
        "/ui/tasks/consolidate": Role.OPERATE,
    }
    with served(server.context.settings.workspace, keys_file=store.file) as closed:
        for role, key in keys.items():
            browser = Browser(closed)
            browser.sign_in(key)
            for path, needed in pages.items():
                assert (browser.get(path).status == 200) == role.allows(needed), (role, path)
            fields = {"csrf": browser.get("/ui/tasks").form("/ui/language")["csrf"], "name": FIRST.name}
            for path in ("/ui/tasks/retire", "/ui/tasks/activate", "/ui/candidates/1/promote", "/ui/tasks/split"):
                assert (browser.post(path, fields).status != 403) == role.allows(Role.OPERATE)
        assert browser.get(f"/ui/tasks/task?name={FIRST.name}").root.all(
            "a", href="/ui/tasks/remove?name=" + FIRST.name
        )


def test_the_state_before_a_consolidation_can_be_gone_back_to(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    due = r"A consolidation is due: there are \d+ training examples in 2 tasks, and none was done so far\."
    with served(learner.path) as running:
        for path in ("overview", "tasks", "tasks/consolidate"):
            assert re.search(due, Browser(running).get(f"/ui/{path}").text)
            assert "統合の時期です。" in Browser(running, "ja").get(f"/ui/{path}").text
        learning = Browser(running).get("/ui/overview").root.all("a", href="/ui/tasks/consolidate")
        assert [one.text for one in learning] == ["Consolidate…"]
    before = learner.consolidate(bound=100, gate=False, evaluate=False).replaced
    with served(learner.path) as running:
        browser = Browser(running)
        assert "A consolidation is due" not in browser.get("/ui/overview").text
        assert "A consolidation is not due yet." in browser.get("/ui/tasks/consolidate").text
        rows = browser.get("/ui/tasks/kept").rows("2 states")
        assert [(row[0], row[1]) for row in rows] == [(str(before + 1), "✓ answers"), (str(before), "Go back to it…")]
        assert browser.get("/ui/tasks/restore", generation=before + 1).status == 404
        asked = browser.get("/ui/tasks/restore", generation=before)
        assert "you can go forward to it again" in asked.text
        done = ended(browser, browser.send(asked, "/ui/tasks/restore"))
        assert "✓ Done" in done.text
        assert browser.get("/ui/tasks/kept").rows("3 states")[0][3] == "Generation restored"


def test_pages_say_which_kept_states_a_removal_deletes_and_lead_to_no_deleted_one(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 3).path) as running:
        browser = Browser(running)
        requested = running.client.post("/v1/consolidate", json={"bound": 100, "gate": False}).json()
        consolidated = ended(browser, browser.get(f"/ui/jobs/{requested['id']}"))
        waited(running, consolidated)
        job = running.context.jobs.get(requested["id"])
        assert job.result is not None
        number = str(job.result["replaced_generation"])
        assert "Go back to the state before it…" in browser.get(consolidated.path).text
        for asked in (
            browser.get("/ui/tasks/retire", label=FIRST.labels[0]),
            removal := browser.get("/ui/tasks/remove", name=SECOND.name),
        ):
            assert f"The kept state of generation {number} is deleted" in asked.text
        waited(running, ended(browser, browser.send(removal, "/ui/tasks/remove")))
        assert "no longer kept" in browser.get(consolidated.path).text
        assert "is deleted, because it holds" not in browser.get("/ui/tasks/retire", label=FIRST.labels[0]).text
