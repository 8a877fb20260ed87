"""Measure the server against the library: throughput at saturation, and one request on an idle server.

python benchmarks/serving.py [--tasks 4] [--seconds 10] [--backbone minilm-l6]

The server and its clients run on loopback and share the cores. No text is asked twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from provenance import provenance, write_result

from conpet import ConPET
from conpet.demo.stream import demo_stream

CLIENTS = {1: 64, 32: 8}
"""Clients at saturation, by the number of texts in a request."""
IDLE_REQUESTS = 60
FULL_BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--backbone", default="minilm-l6")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/serving.json")
    options = parser.parse_args()
    made_by = provenance()
    tasks = demo_stream()[: options.tasks]
    texts = fresh_texts([example.text for task in tasks for example in task.test])
    with tempfile.TemporaryDirectory() as folder:
        learner = ConPET.create(Path(folder) / "ws", backbone=options.backbone)
        for task in tasks:
            learner.learn(task, evaluate=False)
        time.sleep(2.1)  # after a very recent commit, every prediction asks the database for the generation
        result: dict[str, Any] = {"backbone": options.backbone, "tasks": options.tasks}
        result["library"] = {"texts_per_second": throughput(learner, texts, options.seconds), **idle(learner, texts)}
        print(json.dumps(result["library"]), flush=True)
        learner.close()
        with served(learner.path) as url:
            result["server"] = asyncio.run(measured(url, texts, options.seconds))
    print(json.dumps(result["server"]), flush=True)
    best = max(one["texts_per_second"] for one in result["server"]["saturated"].values())
    result["throughput_ratio"] = best / result["library"]["texts_per_second"]
    result["idle_overhead_ms"] = result["server"]["idle_ms"] - result["library"]["idle_ms"]
    print({name: round(result[name], 3) for name in ("throughput_ratio", "idle_overhead_ms")})
    if options.keep:
        print(write_result("serving", result, made_by))


def fresh_texts(texts: list[str]) -> Iterator[str]:
    """Yield texts without end, each with a number that makes it new."""
    return (f"{text} {number}" for number, text in enumerate(itertools.cycle(texts)))


def throughput(learner: ConPET, texts: Iterator[str], seconds: float) -> float:
    """Return how many texts a second the library answers in full batches."""
    learner.predict(list(itertools.islice(texts, FULL_BATCH)))
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += len(learner.predict(list(itertools.islice(texts, FULL_BATCH))))
    return done / (time.perf_counter() - start)


def idle(learner: ConPET, texts: Iterator[str]) -> dict[str, float]:
    """Return the median time to answer one text."""
    times = []
    for text in itertools.islice(texts, IDLE_REQUESTS):
        start = time.perf_counter()
        learner.predict([text])
        times.append(1000 * (time.perf_counter() - start))
    return {"idle_ms": statistics.median(times)}


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """Serve a workspace in another process; yield its address."""
    command = [sys.executable, "-m", "conpet", "serve", str(workspace), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["url"]
        with tempfile.TemporaryFile("w") as sink, subprocess.Popen(["cat"], stdin=process.stderr, stdout=sink):
            yield url
            process.terminate()
            process.wait()


async def measured(url: str, texts: Iterator[str], seconds: float) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        while not await is_ready(client):
            await asyncio.sleep(0.1)
        await saturated(client, texts, 32, 1.0)
        found: dict[str, Any] = {
            "idle_ms": statistics.median([await ask(client, texts, 1) for _ in range(IDLE_REQUESTS)])
        }
        found["saturated"] = {str(size): await saturated(client, texts, size, seconds) for size in CLIENTS}
        return found


async def is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def saturated(client: httpx2.AsyncClient, texts: Iterator[str], size: int, seconds: float) -> dict[str, float]:
    """Ask from many clients at once; return throughput and percentiles of the time of a request."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def ask_on() -> None:
        while time.perf_counter() < end:
            times.append(await ask(client, texts, size))

    start = time.perf_counter()
    await asyncio.gather(*(ask_on() for _ in range(CLIENTS[size])))
    took = time.perf_counter() - start
    cuts = statistics.quantiles(times, n=100)
    return {
        "texts_per_second": size * len(times) / took,
        "requests_per_second": len(times) / took,
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
    }


async def ask(client: httpx2.AsyncClient, texts: Iterator[str], size: int) -> float:
    """Return the milliseconds of a request."""
    start = time.perf_counter()
    response = await client.post("/v1/predict", json={"inputs": list(itertools.islice(texts, size))})
    assert response.status_code == 200, response.text
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
