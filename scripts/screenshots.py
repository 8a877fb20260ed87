"""Make the pictures of the dashboard in the docs: each page in English and Japanese, two also as on a phone.

python -m scripts.screenshots [--only NAME ...] [--into docs/images/dashboard] [--kept build/screenshots]

A workspace of five departments of the demo is learned and kept, with questions of thirty days, a change that the gate
refused, and reviewed answers. Needs the extra `browser` and Chromium.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, Page

from conpet import Client, ConPET, Example, Task
from conpet.demo.stream import demo_stream
from conpet.errors import JobFailedError
from conpet.serve.keys import KeyStore, Role
from conpet.state.engine import answer
from tests.helpers.chromium import find_chromium, launched, new_context
from tests.helpers.serve import Served, served

INTO, KEPT = Path("docs/images/dashboard"), Path("build/screenshots")
WIDE, PHONE = 1280, 360
LOWEST, TALLEST = 500, {WIDE: 1100, PHONE: 900}
LANGUAGES = ("en", "ja")
DEPARTMENTS, LABELS, DAYS, A_DAY, REVIEWED = 5, 8, 30, 40, 15
COLOURS = 256
PRICES = {"cpu_hour": 0.05, "review_hour": 40, "currency": "EUR"}
MILLISECONDS = 180_000
"""Longest wait for a page."""
PLAIN = ("overview", "tasks", "review", "routing", "alarms", "jobs", "audit", "cost", "settings", "keys", "help")
ON_A_PHONE = ("overview", "answer")
QUESTION = "i lost my card yesterday, please freeze my account"


def main() -> None:
    """Make the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", help="names of pictures, as printed")
    parser.add_argument("--into", type=Path, default=INTO)
    parser.add_argument("--kept", type=Path, default=KEPT)
    chosen = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        parser.error("there is no Chromium: install it")
    total = 0
    with _site(chosen.kept) as (server, key), launched(chromium) as browser:
        for language in LANGUAGES:
            context = new_context(browser, language)
            page = _signed_in(context, server, key)
            for name, show in _pictures(server).items():
                if chosen.only and name not in chosen.only:
                    continue
                show(page)
                for width in (WIDE, PHONE) if name in ON_A_PHONE else (WIDE,):
                    file = chosen.into / language / f"{name}{'-phone' if width == PHONE else ''}.png"
                    total += _picture(page, width, file)
            context.close()
    sys.stdout.write(f"{total:,} bytes\n")


@contextmanager
def _site(kept: Path) -> Iterator[tuple[Served, str]]:
    """Serve a copy of the workspace, so that each run begins with the same."""
    if not (kept / "learned").exists():
        unfinished = kept / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _learn(unfinished)
        unfinished.rename(kept / "learned")
    shutil.rmtree(kept / "support", ignore_errors=True)
    folder = shutil.copytree(kept / "learned", kept / "support")
    keys = KeyStore(kept / "keys.sqlite")
    key, _ = keys.create(Role.OPERATE, "Aya Tanaka")
    if len(keys.list()) == 1:
        keys.create(Role.PREDICT, "web shop")
        keys.create(Role.LEARN, "Ben Miller, cards")
    with served(folder, keys_file=keys.file, log_predictions="text", watch_seconds=3600) as running:
        _use(running, key)
        yield running, key


def _departments() -> list[Task]:
    return [_cut(task) for task in demo_stream()[:DEPARTMENTS]]


def _cut(task: Task) -> Task:
    """Return a task with fewer labels."""
    labels = set(task.labels[:LABELS])
    subsets = {
        subset: tuple(one for one in getattr(task, subset) if one.label in labels)
        for subset in ("train", "validation", "test")
    }
    return replace(task, **subsets)


def _learn(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ConPET.create(folder, backbone="minilm-l6", training={"epochs": 3}, prices=PRICES) as learner:
        first, *others = _departments()
        learner.learn(replace(first, train=first.train[::2]))
        for task in others:
            learner.learn(task)
        learner.learn(first)


def _use(server: Served, key: str) -> None:
    """Ask for thirty days, let the gate refuse a change, and review some answers."""
    server.client.headers["Authorization"] = f"Bearer {key}"
    tasks, generator = _departments(), random.Random(0)  # noqa: S311
    texts = [one.text for task in tasks for one in task.test] + [one.text for one in demo_stream()[-1].test[:40]]
    log, now = server.context.recorder.predictions, time.time()
    for day in range(DAYS, 0, -1):
        asked = [Example.of_text(text) for text in generator.choices(texts, k=A_DAY + generator.randrange(20))]
        found = answer(server.context.serving.live, asked, traced=True)
        log.append(log.rows(f"day {day}", asked, found, with_text=True, at=now - day * 86_400))
    with Client(f"http://127.0.0.1:{server.port}", key=key) as client, suppress(JobFailedError):
        client.wait(client.learn(Task("new cards", tuple(_rivals(tasks[0])), (), ())))
    review = server.context.review()
    review.draw(random=20, uncertain=10, declined=5)
    right = {one.text: str(one.label) for task in tasks for one in task.test}
    for _ in range(REVIEWED):
        item = review.next("Aya Tanaka")
        if item is None:
            return
        label = right.get(item.example.text)
        review.answer(item.id, "correct" if label else "none", label, reviewer="Aya Tanaka")


def _rivals(task: Task) -> Iterator[Example]:
    """Yield questions of a task under labels of another team, which would take its answers."""
    for one in (*task.validation, *task.test):
        yield Example.of_text(f"{one.text} please", f"{str(one.label).split('_')[0]}_question")


def _signed_in(context: BrowserContext, server: Served, key: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(f"http://127.0.0.1:{server.port}/ui/sign-in")
    page.locator("#key").fill(key)
    page.locator("main button").click()
    page.wait_for_load_state()
    return page


def _pictures(server: Served) -> dict[str, Callable[[Page], None]]:
    """Return how to come to each page, by the name of its picture."""
    origin, task = f"http://127.0.0.1:{server.port}", _departments()[0].name

    def at(path: str, page: Page) -> None:
        while (answer := page.goto(f"{origin}/ui/{path}")) and "refresh" in answer.headers:  # it is being computed
            time.sleep(1)
        page.wait_for_load_state("networkidle")

    def ask(page: Page) -> None:
        at("try", page)
        page.locator("#text").fill(QUESTION)
        page.locator("#try button.main").click()
        page.wait_for_selector(".answer")

    def upload(page: Page) -> None:
        at("tasks/learn", page)
        page.locator("#name").fill("travel")
        rows = [(one.text, one.label) for one in _cut(demo_stream()[DEPARTMENTS]).train]
        rows += [rows[0], (rows[1][0], rows[-1][1]), (f"{rows[2][0]} ", rows[2][1])]
        table = "".join(f'"{text}","{label}"\n' for text, label in rows)
        page.locator("#file").set_input_files(
            {"name": "travel.csv", "mimeType": "text/csv", "buffer": f"text,label\n{table}".encode()}
        )
        page.locator("main form[enctype] button").click()
        page.wait_for_selector("dl.cards")

    def refused(page: Page) -> None:
        at("jobs", page)
        page.locator("main tbody a").first.click()
        page.wait_for_load_state()

    return {
        **{name: partial(at, name) for name in PLAIN},
        "answer": ask,
        "task": partial(at, f"tasks/task?name={task}"),
        "versions": partial(at, f"tasks/task?name={task}&view=versions"),
        "confusions": partial(at, f"tasks/task?name={task}&view=confusions"),
        "check": upload,
        "refused": refused,
        "review-item": partial(at, "review/next"),
        "prediction": partial(at, "audit/predictions"),
    }


def _picture(page: Page, width: int, file: Path) -> int:
    """Save what a page shows, with few colours; return the size of the file."""
    page.set_viewport_size({"width": width, "height": LOWEST})
    page.wait_for_timeout(200)  # charts are drawn anew
    height = min(TALLEST[width], page.evaluate("document.documentElement.scrollHeight"))
    raw = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height}, full_page=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(raw)).convert("RGB").quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    ).save(file, optimize=True)
    size = file.stat().st_size
    sys.stdout.write(f"{file} {size:,}\n")
    return size


if __name__ == "__main__":
    main()
