"""How long until the first byte of each page of the dashboard? See docs/how-to/dashboard.md.

python benchmarks/dashboard.py [--tasks 1000] [--entries 1000000] [--kept FOLDER] [--profile PAGE]

A workspace of tiny tasks and a record of predictions of these tasks are made, which takes half an hour, and kept. A
server in a process of its own serves them. Pages are those of the navigation, and one of each kind that they link to.
Each is asked for once, then `--repeats` times; processor times are those of the server. Drawings are the charts that
pages show. `--profile` prints instead where the time of one page goes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from prediction_log import fill
from provenance import provenance, write_result

from conpet.serve.run import listen
from conpet.serve.settings import ServeSettings
from conpet.store.prediction_log import PredictionLog
from conpet.testing import Trial, tiny_settings, toy_stream

REPEATS, BATCH = 20, 50
GOAL_MILLISECONDS = 200
VIEWS = ("view", "days")
"""Fields of addresses whose values make pages of their own."""
SECONDS_TO_START = 600
_LINK = re.compile(r'<a [^>]*?href="(/ui/[^"#]*)')
_DRAWING = re.compile(r'<img [^>]*?src="(/ui/[^"]*)')
_NUMBER = re.compile(r"/(?:[0-9]+|[0-9a-f]{8,})(?=/|$)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--kept", type=Path, default=Path("build/dashboard"), help="folder of the workspace")
    parser.add_argument("--profile", metavar="PAGE", help="an address below /ui/")
    chosen = parser.parse_args()
    made_by = provenance()
    folder = _workspace(chosen.kept, chosen.tasks, chosen.entries)
    with _served(folder, chosen.profile is not None) as (client, process):
        if chosen.profile:
            for _ in range(chosen.repeats):
                client.get(chosen.profile).raise_for_status()
            return
        pages, drawings = _addresses(client)
        result = {
            "tasks": chosen.tasks,
            "entries": chosen.entries,
            "repeats": chosen.repeats,
            "goal_milliseconds": GOAL_MILLISECONDS,
            "pages": {page: _timed(client, process, page, chosen.repeats) for page in pages},
            "drawings": {drawing: _timed(client, process, drawing, chosen.repeats) for drawing in drawings},
        }
    write_result("dashboard", result, made_by)
    for kind in ("pages", "drawings"):
        for address, one in result[kind].items():
            sys.stdout.write(f"{one['median']:8.0f} {one['longest']:8.0f} {one['processor']:8.0f} ms  {address}\n")


def _workspace(kept: Path, tasks: int, entries: int) -> Path:
    """Return the folder of a workspace, which is made if it is not there."""
    folder = kept / f"{tasks}-{entries}"
    if not folder.exists():
        unfinished = kept / f"{tasks}-{entries}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        learner = Trial(unfinished, tiny_settings(training={"epochs": 1, "max_steps": 1})).workspace()
        stream = [replace(task, name=f"task {number}") for number, task in enumerate(toy_stream(tasks, 2, 3, 1, 2))]
        for batch in _batches(stream):
            learner.learn_batch(batch, gate=False)
        log = PredictionLog(learner.path)
        fill(log, entries, tasks)
        log.close()
        learner.path.rename(folder)
        unfinished.rmdir()
    return folder


def _batches(tasks: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH))


@contextmanager
def _served(folder: Path, profiled: bool) -> Iterator[tuple[httpx2.Client, int]]:
    """Serve a workspace; yield a client and the id of the server's process."""
    with listen(ServeSettings(workspace=folder, port=0)) as listening:
        port = listening.getsockname()[1]
    command = [sys.executable, *(["-m", "cProfile", "-s", "cumulative"] if profiled else []), "-m", "conpet"]
    server = subprocess.Popen(
        [*command, "serve", str(folder), "--port", str(port), "--log-predictions", "hash", "--set", "log_level=error"]
    )
    try:
        headers = {"Accept": "text/html", "Accept-Language": "en"}
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=SECONDS_TO_START) as client:
            _await(client, server)
            yield client, server.pid
    finally:
        server.terminate()
        server.wait()


def _await(client: httpx2.Client, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server is ready, and has computed what pages wait for."""
    deadline = time.monotonic() + SECONDS_TO_START
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit("the server did not start")


def _addresses(client: httpx2.Client) -> tuple[list[str], list[str]]:
    """Return the addresses of the pages in the navigation and of one page of each kind behind them, and of charts."""
    first = client.get("/ui/", follow_redirects=True).raise_for_status().text
    navigation = re.search(r"<nav.*?</nav>", first, re.DOTALL)
    assert navigation is not None
    pages = [unescape(address) for address in _LINK.findall(navigation[0])]
    kinds, drawings = {_kind(page) for page in pages}, {}
    for page in tuple(pages):
        text = _whole(client, page)
        drawings |= {_kind(one): one for one in map(unescape, _DRAWING.findall(text))}
        for link in map(unescape, _LINK.findall(text)):
            if _kind(link) not in kinds and _is_page(client, link):
                kinds.add(_kind(link))
                pages.append(link)
    return pages, list(drawings.values())


def _whole(client: httpx2.Client, page: str) -> str:
    """Return a page when it shows all that the server computes for it."""
    deadline = time.monotonic() + SECONDS_TO_START
    while "refresh" in (answer := client.get(page).raise_for_status()).headers:
        if time.monotonic() > deadline:
            raise SystemExit(f"{page} waits for what is computed beside it")
        time.sleep(1)
    return answer.text


def _kind(address: str) -> tuple[str, ...]:
    """Return what pages of a kind have in common."""
    query = parse_qsl(urlsplit(address).query)
    return (_NUMBER.sub("/1", urlsplit(address).path), *(f"{k}={v}" if k in VIEWS else k for k, v in sorted(query)))


def _is_page(client: httpx2.Client, link: str) -> bool:
    answer = client.get(link)
    return answer.status_code == 200 and "<main" in answer.text and "content-disposition" not in answer.headers


def _timed(client: httpx2.Client, process: int, address: str, repeats: int) -> dict[str, Any]:
    """Return milliseconds until the first byte: the median, the longest, and the processor time of one request."""
    first = _until_first_byte(client, address)
    before = _processor_seconds(process)
    milliseconds = [_until_first_byte(client, address) for _ in range(repeats)]
    spent = 1000 * (_processor_seconds(process) - before) / repeats
    return {
        "first": first,
        "median": statistics.median(milliseconds),
        "longest": max(milliseconds),
        "processor": spent,
    }


def _until_first_byte(client: httpx2.Client, address: str) -> float:
    started = time.perf_counter()
    with client.stream("GET", address) as answer:
        answer.raise_for_status()
        parts = answer.iter_raw()
        next(parts)
        passed = time.perf_counter() - started
        for _ in parts:
            pass
    return 1000 * passed


def _processor_seconds(process: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
