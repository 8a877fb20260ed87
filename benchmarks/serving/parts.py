"""The parts of the measurement, each a function of a bench that returns what the result file has."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import processes
from benchmarks.serving.client import UNANSWERED, Plan
from benchmarks.serving.processes import Asked, Server
from conpet.demo.stream import demo_stream

CLIENTS = {1: 512, 32: 16}
"""Clients that ask on and on, by the number of texts in a request: while a full batch is answered, another waits."""
SYSTEMS = {1: ("conpet", "plain", "peft"), 32: ("conpet", "plain", "loop", "peft")}
"""What is compared, by the number of texts in a request; with one, `plain` and `loop` are the same."""
SHARES = (0.1, 0.3, 0.6, 0.9, 1.1)
"""Rates, as shares of what the library can do in full batches."""
WAITING, WAITING_SECONDS = 0.1, 1.0
"""A system keeps up if no larger share of the requests waits at the end, or no more than arrive in some seconds."""
FULL_BATCH = 256
FULL_BATCH_SECONDS = 4.0
"""`batch_seconds` of a server whose batches are as full as the library's, however long they take."""
WARM = 0.1
"""Share of its duration for which something runs before it is measured."""
WORDS = 9
"""Words of each text where tasks are compared, so that those of all tasks are equally long."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of all parts.

    Attributes:
        backbones: Backbones that are served.
        memory_backbone: The backbone whose memory is watched.
        tasks: Number of tasks.
        examples: Training examples of each label.
        epochs: Epochs of training.
        seconds: Duration of a measurement.
        enough: Requests at a rate for which a measurement lasts longer, up to three times as long.
        pairs: Number of pairs where two sides are compared.
        long: Most texts in a long request.
        requests: Requests while memory is watched.
        marks: Number of looks at the memory.
    """

    backbones: tuple[str, ...] = ("minilm-l6", "smollm2-135m")
    memory_backbone: str = "tiny-random"
    tasks: int = 10
    examples: int = 10
    epochs: int = 3
    seconds: float = 3.0
    enough: int = 20
    pairs: int = 3
    long: int = 1000
    requests: int = 200_000
    marks: int = 20


QUICK = Sizes(
    backbones=("tiny-random",), tasks=2, examples=2, epochs=1, seconds=0.3, enough=1, pairs=1, long=100, requests=400,
    marks=4,
)  # fmt: skip


class Bench:
    """Starts what the parts need, once; stops everything at the end of the block."""

    def __init__(self, work: Path, sizes: Sizes) -> None:
        self.work = work
        self.sizes = sizes
        self._stack = ExitStack()
        self._seed = 0
        self._started: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def texts(self) -> dict[str, list[str]]:
        """Return the texts of each task."""
        return {name: list(texts) for name, texts in _texts()[: self.sizes.tasks]}

    def server(self, backbone: str, **settings: float) -> Server:
        """Return conpet's server with some settings."""
        name = " ".join([backbone, *(f"{name}={value}" for name, value in settings.items())])
        return self._once("server", name, lambda: processes.conpet(self._learned(backbone) / "ws", **settings))

    def library(self, backbone: str) -> Asked:
        """Return the library."""
        return self._once("library", backbone, lambda: processes.library(self._learned(backbone) / "ws"))

    def client(self, number: int = 1) -> Asked:
        """Return a client; several work at the same time."""
        return self._once("client", str(number), processes.client)

    @contextmanager
    def system(self, name: str, backbone: str) -> Iterator[Server]:
        """Return conpet's server or start a rival."""
        if name == "conpet":
            yield self.server(backbone)
            return
        with processes.rival(name, backbone, self._learned(backbone) / "modules") as server:
            yield server

    def ask(
        self, server: Server, size: int, seconds: float | None = None, client: int = 1, **more: Any
    ) -> dict[str, Any]:
        """Let a client ask a server; every call has other texts."""
        self._seed += 1
        plan = Plan(
            port=server.port,
            **{"texts": self.texts(), "seconds": seconds or self.sizes.seconds, "seed": self._seed, **more},
            size=size,
        )
        cpu = server.cpu_seconds()
        found = processes.carry_out(self.client(client), plan)
        return {**found, "server_cpu_seconds": server.cpu_seconds() - cpu}

    def measure(self, library: Asked, batch: int, seconds: float | None = None) -> dict[str, Any]:
        """Let the library predict."""
        self._seed += 1
        seconds = seconds or self.sizes.seconds
        return library.ask(texts=self.texts(), seed=self._seed, seconds=seconds, batch=batch)

    def turns(self, pairs: int, seconds: float) -> Iterator[tuple[int, float]]:
        """Yield the number and duration of each turn; the first, -1, is short and not counted: it warms."""
        yield -1, WARM * seconds
        for number in range(pairs):
            yield number, seconds

    def _once(self, kind: str, name: str, start: Callable[[], Any]) -> Any:
        if (kind, name) not in self._started:
            self._started[kind, name] = self._stack.enter_context(start())
        return self._started[kind, name]

    def _learned(self, backbone: str) -> Path:
        """Return the folder of a workspace and its exported modules, learned once and kept."""
        numbers = (self.sizes.tasks, self.sizes.examples, self.sizes.epochs)
        folder = self.work / "-".join([backbone, *map(str, numbers)])
        if not folder.exists():
            aside = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            processes.learn(aside, backbone, numbers)
            aside.rename(folder)
        return folder


@cache
def _texts() -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((task.name, tuple(example.text for example in task.test)) for task in demo_stream())


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return median, extremes and all values."""
    return {"median": median(values), "low": min(values), "high": max(values), "values": list(values)}


def percentiles(milliseconds: Sequence[float]) -> dict[str, float | None]:
    """Return percentiles of sorted times; None if there are none."""
    last = len(milliseconds) - 1
    return {
        f"p{percent}_ms": milliseconds[min(last, round(percent / 100 * len(milliseconds)))] if milliseconds else None
        for percent in (50, 95, 99)
    }


def texts_per_second(found: dict[str, Any], size: int) -> float:
    """Return the throughput of clients that ask on and on."""
    refused = sum(count for status, count in found["statuses"].items() if int(status) != 200)
    assert not refused, f"requests failed: {found['statuses']}"
    return float(size * found["answered_in_time"] / found["seconds"])


def capacity(bench: Bench, backbone: str) -> float:
    """Return how many texts a second the library predicts in full batches."""
    found = bench.measure(bench.library(backbone), FULL_BATCH)
    return float(found["texts"] / found["seconds"])


def rates(bench: Bench, backbone: str) -> dict[str, Any]:
    """Ask each system at rising rates, at random times, until it does not keep up."""
    full = capacity(bench, backbone)
    return {
        "library_texts_per_second": full,
        "by_size": {
            str(size): {name: _rising(bench, backbone, name, size, full / size) for name in systems}
            for size, systems in SYSTEMS.items()
        },
    }


def _rising(bench: Bench, backbone: str, name: str, size: int, full: float) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    with bench.system(name, backbone) as server:
        bench.ask(server, size, seconds=0.5)
        for share in SHARES:
            steps.append(_at_rate(bench, server, size, share * full))
            if not steps[-1]["kept_up"]:
                break
        bench.ask(server, 1, seconds=0.1)  # until what waits is done
    return steps


def _at_rate(bench: Bench, server: Server, size: int, rate: float) -> dict[str, Any]:
    seconds = min(3 * bench.sizes.seconds, max(bench.sizes.seconds, bench.sizes.enough / rate))
    found = bench.ask(server, size, seconds, rate=rate, grace=bench.sizes.seconds)
    sent = sum(found["statuses"].values())
    return {
        "requests_per_second": rate,
        "sent": sent,
        "answered_per_second": found["answered_in_time"] / seconds,
        "unanswered": found["statuses"].get(str(UNANSWERED), 0),
        "refused": sum(n for status, n in found["statuses"].items() if int(status) in (429, 503, 504)),
        **percentiles(found["milliseconds"]),
        "late_ms": median(found["late"]) if found["late"] else 0.0,
        "kept_up": sent - found["answered_in_time"] <= max(WAITING * sent, WAITING_SECONDS * rate),
    }


def saturation(bench: Bench, backbone: str) -> dict[str, Any]:
    """Keep the server busy, in turns with the library in full batches; also a server that may wait for such batches."""
    usual, library = bench.server(backbone), bench.library(backbone)
    patient = bench.server(backbone, batch_seconds=FULL_BATCH_SECONDS)
    ways = {"1": (usual, 1), "32": (usual, 32), "32 in full batches": (patient, 32)}
    sides: dict[str, list[float]] = {"library": [], **{name: [] for name in ways}}
    cpu: dict[str, list[float]] = {}
    for number, seconds in bench.turns(bench.sizes.pairs, bench.sizes.seconds):
        found = bench.measure(library, FULL_BATCH, seconds)
        measured = {"library": (found["texts"] / found["seconds"], found["cpu_seconds"] / found["texts"])}
        for name, (server, size) in ways.items():
            found = bench.ask(server, size, seconds, clients=CLIENTS[size])
            answered = size * len(found["milliseconds"])
            measured[name] = (texts_per_second(found, size), found["server_cpu_seconds"] / answered)
            measured[f"client {name}"] = (0.0, found["client_cpu_seconds"] / answered)
        if number >= 0:
            for name, (speed, spent) in measured.items():
                if name in sides:
                    sides[name].append(speed)
                cpu.setdefault(name, []).append(1000 * spent)
    return {
        "texts_per_second": {name: spread(values) for name, values in sides.items()},
        "cpu_ms_per_text": {name: spread(values) for name, values in cpu.items()},
        "ratio": {
            name: spread([ours / full for ours, full in zip(sides[name], sides["library"], strict=True)])
            for name in ways
        },
        "clients": {name: CLIENTS[size] for name, (_, size) in ways.items()},
        "full_batch_seconds": FULL_BATCH_SECONDS,
        "wanted": 0.9,
    }


def idle(bench: Bench, backbone: str) -> dict[str, Any]:
    """Ask one text after another, in turns with the library."""
    server, library = bench.server(backbone), bench.library(backbone)
    ours, theirs = [], []
    for number, seconds in bench.turns(2 * bench.sizes.pairs, bench.sizes.seconds / 2):
        there = median(bench.measure(library, 1, seconds)["milliseconds"])
        here = median(bench.ask(server, 1, seconds)["milliseconds"])
        if number >= 0:
            ours.append(here)
            theirs.append(there)
    return {
        "server_ms": spread(ours),
        "library_ms": spread(theirs),
        "above_bound_ms": spread([here - (1.15 * there + 2) for here, there in zip(ours, theirs, strict=True)]),
        "factor": 1.15,
        "milliseconds": 2.0,
    }


def tasks(bench: Bench, backbone: str) -> dict[str, Any]:
    """Keep the server busy with texts of one task, in turns with texts of all tasks."""
    server, every = bench.server(backbone), bench.texts()
    names = list(every)
    size, equal = 32, {"words": (WORDS, WORDS), "clients": CLIENTS[32]}
    one, all_of_them = [], []
    for number, seconds in bench.turns(bench.sizes.pairs, bench.sizes.seconds):
        name = names[number % len(names)]
        single = texts_per_second(bench.ask(server, size, seconds, texts={name: every[name]}, **equal), size)
        mixed = texts_per_second(bench.ask(server, size, seconds, mixed=True, **equal), size)
        if number >= 0:
            one.append(single)
            all_of_them.append(mixed)
    return {
        "tasks": len(names),
        "words": WORDS,
        "one_task": spread(one),
        "all_tasks": spread(all_of_them),
        "time_ratio": spread([single / mixed for single, mixed in zip(one, all_of_them, strict=True)]),
        "wanted": 1.1,
    }


def long(bench: Bench, backbone: str) -> dict[str, Any]:
    """Ask short requests at a low rate, alone and beside a client that sends one long request after another."""
    server = bench.server(backbone)
    full = capacity(bench, backbone)
    texts = max(CLIENTS[32], min(bench.sizes.long, int(8 * full)))
    rate = max(2.0, min(10.0, 0.05 * full))
    seconds = 3 * bench.sizes.seconds
    short = {"size": 1, "seconds": seconds, "rate": rate}
    alone = bench.ask(server, **short)
    with ThreadPoolExecutor(1) as thread:
        beside = thread.submit(bench.ask, server, texts, seconds=seconds, client=2)
        with_long = bench.ask(server, **short)
        answered = len(beside.result()["milliseconds"])
    return {
        "texts": texts,
        "long_requests_answered": answered,
        "short_per_second": rate,
        "batch_ms": 250,
        "alone": percentiles(alone["milliseconds"]),
        "beside": percentiles(with_long["milliseconds"]),
        "longest_ms": max(with_long["milliseconds"], default=None),
        "unanswered": sum(n for status, n in with_long["statuses"].items() if int(status) != 200),
    }


def memory(bench: Bench, backbone: str) -> dict[str, Any]:
    """Watch the server's memory over many requests with texts of all lengths."""
    each = bench.sizes.requests // bench.sizes.marks
    server, marks, statuses = bench.server(backbone), [], Counter[str]()
    bench.ask(server, 1, clients=16, seconds=2.0, words=(1, 120))
    held = [server.memory_mb()]
    for _ in range(bench.sizes.marks):
        found = bench.ask(server, 1, clients=16, requests=each, seconds=3600.0, words=(1, 120))
        statuses.update(found["statuses"])
        marks.append(statuses.total())
        held.append(server.memory_mb())
        print(dict(statuses), round(held[-1], 1), flush=True)
    half = len(held) // 2
    return {
        "requests": statuses.total(),
        "answered": statuses["200"],
        "words": [1, 120],
        "at": [0, *marks],
        "memory_mb": held,
        "second_half_growth_mb": held[-1] - held[half],
    }


PARTS: dict[str, Callable[[Bench, str], dict[str, Any]]] = {
    "saturation": saturation,
    "idle": idle,
    "tasks": tasks,
    "long": long,
    "rates": rates,
    "memory": memory,
}
"""The parts by name, in their order on the page."""


def backbones(part: str, sizes: Sizes) -> tuple[str, ...]:
    """Return the backbones with which a part is measured."""
    return (sizes.memory_backbone,) if part == "memory" else sizes.backbones


def load() -> float:
    """Return the mean number of processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)
