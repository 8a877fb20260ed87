"""A server with everything that its pages show, under names that try to break them; and a browser."""

from __future__ import annotations

import csv
import getpass
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from conpet import Client, ConPET, Task
from conpet.errors import JobFailedError
from conpet.serve.keys import KeyStore, Role
from conpet.testing import Trial, tiny_settings
from tests.helpers import gate
from tests.helpers.chromium import Tab, launched, new_context, require_chromium, words_of, written
from tests.helpers.dashboard import Browser as FormBrowser
from tests.helpers.serve import Served, served, wait_for

SCRIPT = "<script>alert(1)</script>"
TASK = f"{SCRIPT} \"q\" 'a' &amp; {{{{7*7}}}}"
LABELS = ('"><img src=x onerror=alert(1)>', "مرحبا بالعالم – a/b?c=d&e#f", "🧾👩🏽‍💻 " + "W" * 180)
OTHERS = ("{{7*7}}${7*7}", "javascript:alert(1)", "' OR 1=1 --")
TEXT = f"{SCRIPT} <b onmouseover=alert(1)>\u202eabc\u202c {'V' * 300}"
FILE = "<img src=x onerror=alert(1)> {{7*7}} مرحبا.csv"
KEY_NAME = "<script>alert(1)</script> K 'k\""
OTHER_KEY = "'\"k 🧾 مرحبا"
PERSON = "qx"
"""Names of tasks, labels, files and keys, and a text, that break a page which does not escape them."""


def renamed(task: Task, name: str, labels: dict[str, str]) -> Task:
    """Return a task with another name and other labels."""
    subsets = {
        subset: tuple(one.labelled(labels[str(one.label)]) for one in getattr(task, subset))
        for subset in ("train", "validation", "test")
    }
    return replace(task, name=name, **subsets)


NAMED = dict(zip((*gate.FIRST.labels, *gate.SECOND.labels), (*LABELS, *OTHERS), strict=True))
FIRST = renamed(gate.FIRST, TASK, NAMED)
SECOND = renamed(gate.SECOND, "zq", NAMED)


ASKED = {f"{one.text} zx": str(one.label) for task in (FIRST, SECOND) for one in task.test}
"""Inputs that are not stored, and the right label of each."""


def more_of(task: Task) -> Task:
    """Return a task with a training example more."""
    return replace(task, train=(*task.train, replace(task.test[0])), test=task.test[1:])


@dataclass(frozen=True)
class Site:
    """The server of the tests.

    Attributes:
        server: The server.
        keys: Its keys.
        key: A key of the role operate.
        person: The id of that key.
        staged: Addresses of uploads that were checked and are not learned.
        user_words: Words that users have written.
    """

    server: Served
    keys: KeyStore
    key: str
    staged: Sequence[str]
    user_words: frozenset[str]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


def _taught(folder: Path) -> ConPET:
    learner = Trial(folder, tiny_settings()).workspace()
    learner.learn_batch([FIRST, SECOND])
    learner.learn(more_of(SECOND), gate=False)
    learner.consolidate(bound=100, gate=False, evaluate=False)
    return learner


def _used(server: Served, key: str, folder: Path) -> Sequence[str]:
    """Ask, let the gate refuse a task, draw answers for review, upload files; return the addresses of the uploads."""
    texts = [*ASKED, TEXT]
    server.client.headers["Authorization"] = f"Bearer {key}"
    server.predict(texts, headers={"X-Request-ID": "asked"}).raise_for_status()
    wait_for(lambda: server.context.recorder.predictions.total() == len(texts))
    with Client(f"http://127.0.0.1:{server.port}", key=key) as client:
        refused = client.learn(replace(gate.harmful(), name="zz"))
        with pytest.raises(JobFailedError):
            client.wait(refused)
    browser = FormBrowser(server)
    browser.sign_in(key)
    drawn = browser.send(browser.get("/ui/review"), "/ui/review/draw", {"random": 3, "uncertain": 2, "declined": 2})
    assert drawn.status == 200, drawn.text
    review = server.context.review()
    item = review.next(PERSON)
    assert item is not None
    review.answer(item.id, "correct", ASKED.get(item.example.text or "", OTHERS[0]), reviewer=PERSON)
    more = [(f"{one.text} zx", str(one.label)) for one in SECOND.train[:6]]
    new = [(f"{one.text} zq", name) for one in SECOND.train[:6] for name in (KEY_NAME, OTHER_KEY)]
    file = written(folder, "given.csv", [*more, *new])
    form = browser.get("/ui/tasks/learn")
    given = {"file": (FILE, file.read_bytes(), "text/csv")}
    checked = browser.send(form, "/ui/tasks/learn", {"kind": "more", "name": ""}, given)
    assert checked.status == 200, checked.text
    asked = browser.get("/ui/tasks/split", label=OTHERS[0])
    rows = csv.reader(browser.get("/ui/tasks/split.csv", label=OTHERS[0]).response.text.lstrip("\ufeff").splitlines())
    head, *sorted_rows = rows
    table = [head, *([number, text, (KEY_NAME, OTHER_KEY)[int(number) % 2]] for number, text, _ in sorted_rows)]
    filled = io.StringIO()
    csv.writer(filled).writerows(table)
    given = {"file": ("split.csv", filled.getvalue().encode(), "text/csv")}
    split = browser.send(asked, "/ui/tasks/split/file", files=given)
    assert split.status == 200, split.text
    return checked.path, split.path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("browser")
    learner = _taught(folder)
    keys = KeyStore(folder / "keys.sqlite")
    key, _ = keys.create(Role.OPERATE, PERSON)
    keys.create(Role.LEARN, KEY_NAME)
    written_by_users = (
        TASK,
        *LABELS,
        *OTHERS,
        TEXT,
        FILE,
        KEY_NAME,
        OTHER_KEY,
        PERSON,
        "zq zz zx asked",
        gate.TAKER,
        "other",
    )
    tasks = (FIRST, SECOND, gate.THIRD, gate.harmful())
    inputs = (one.text for task in tasks for one in (*task.train, *task.test))
    words = words_of((*written_by_users, *inputs, learner.path.name, getpass.getuser()))
    with served(learner.path, keys_file=keys.file, log_predictions="text", watch_seconds=3600) as running:
        yield Site(running, keys, key, _used(running, key, folder), words)


@pytest.fixture(scope="module")  # an open browser keeps an event loop running, which other tests must not find
def browser() -> Iterator[Browser]:
    with launched(require_chromium()) as started:
        yield started


@pytest.fixture
def tab_of(browser: Browser, site: Site) -> Iterator[Callable[..., Tab]]:
    """Return a function that opens a tab, by default signed in with a key of the role operate."""
    with ExitStack() as stack:

        def opened(language: str = "en", *, scripts: bool = True, key: str | None = site.key) -> Tab:
            context: BrowserContext = new_context(browser, language, scripts=scripts)
            stack.callback(context.close)
            tab = Tab(context.new_page(), site.origin, language, site.user_words)
            if key is not None:
                tab.sign_in(key)
            return tab

        yield opened
