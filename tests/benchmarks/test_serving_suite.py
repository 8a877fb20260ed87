"""The measurements of the server, in sizes of seconds, and the page made from them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from benchmarks import serving_page
from benchmarks.serving import processes, rivals
from benchmarks.serving.__main__ import run
from benchmarks.serving.client import UNANSWERED, Plan, at_rate, carried_out, fresh_text, in_turn, requests
from benchmarks.serving.library import Library, learn
from benchmarks.serving.parts import PARTS, QUICK, SYSTEMS
from benchmarks.serving.processes import Server
from tests.helpers.serve import served, wait_for

SIZES = replace(QUICK, seconds=0.2, long=20, requests=40, marks=2)
PLAN = Plan(port=0, texts={"one": ["a b c"], "two": ["d"]}, size=2, seconds=0.3)


class Here:
    """Stands in for a process that answers questions."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def ask(self, **question: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(self._answer(question)))
        return answer


@contextmanager
def conpet_here(workspace: Path, **settings: float) -> Iterator[Server]:
    with served(workspace, **settings) as running:
        yield Server(running.port, os.getpid())


@contextmanager
def rival_here(kind: str, backbone: str, modules: Path) -> Iterator[Server]:
    started: list[tuple[int, uvicorn.Server]] = []
    thread = threading.Thread(
        target=rivals.serve, args=(kind, backbone, modules, lambda port, server: started.append((port, server)))
    )
    thread.start()
    wait_for(lambda: bool(started) and started[0][1].started)
    yield Server(started[0][0], os.getpid())
    started[0][1].should_exit = True
    thread.join(60)


@contextmanager
def client_here() -> Iterator[Here]:
    yield Here(lambda question: asyncio.run(carried_out(Plan(**question))))


@contextmanager
def library_here(workspace: Path) -> Iterator[Here]:
    library = Library(workspace)
    yield Here(lambda question: library.measure(**question))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    """Run in this process what has one of its own: to import torch takes longest."""
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in (
            ("conpet", conpet_here),
            ("rival", rival_here),
            ("client", client_here),
            ("library", library_here),
            ("learn", lambda folder, backbone, numbers: learn(folder, backbone, *numbers)),
        ):
            patch.setattr(processes, name, stand_in)
        yield


@pytest.fixture(scope="module")
def result(work: Path) -> dict[str, Any]:
    """Return the file of a run of all parts."""
    out = work / "serving.json"
    run(work, SIZES, list(PARTS), out)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_every_part_is_measured_with_provenance_and_load(result: dict[str, Any]) -> None:
    assert list(result["parts"]) == list(PARTS)
    for part in result["parts"].values():
        assert {"commit", "versions", "machine", "command"} <= part["made_by"].keys()
        assert len(part["load"]) == 2
    found = {name: part["backbones"]["tiny-random"] for name, part in result["parts"].items()}
    assert all(spread["median"] > 0 for spread in found["saturation"]["texts_per_second"].values())
    assert found["idle"]["server_ms"]["median"] > 0
    assert found["tasks"]["time_ratio"]["median"] > 0
    assert found["memory"]["at"] == [0, 20, 40]
    assert found["memory"]["answered"] == 40
    assert found["memory"]["memory_mb"][0] > 10
    assert {size: tuple(one) for size, one in found["rates"]["by_size"].items()} == {
        str(size): systems for size, systems in SYSTEMS.items()
    }


def test_a_part_is_measured_again_beside_the_others(result: dict[str, Any], work: Path) -> None:
    out = work / "again.json"
    out.write_text(json.dumps(result))
    run(work, SIZES, ["memory"], out)
    again = json.loads(out.read_text())["parts"]
    assert again["memory"]["backbones"] != result["parts"]["memory"]["backbones"]
    assert {**again, "memory": None} == {**result["parts"], "memory": None}


def test_the_page_shows_every_part_and_what_was_not_reached(result: dict[str, Any]) -> None:
    page = serving_page.rendered(result, {})
    for section in ("Throughput", "One request on an idle server", "Ten tasks or one", "Rising rates", "Memory"):
        assert f"\n## {section}\n" in page
    assert all(title in page for title in serving_page.SYSTEMS.values())
    saturation = result["parts"]["saturation"]
    saturation["backbones"]["tiny-random"]["ratio"] = {
        "1": {"median": 0.5, "low": 0.4, "high": 0.95},
        "32": {"median": 0.93, "low": 0.91, "high": 0.95},
    }
    for load, said in ((0.2, False), (7.0, True)):
        parts = {"saturation": {**saturation, "load": [load, load]}}
        page = serving_page.rendered({"parts": parts}, {})
        assert ("saturation (load average 7.0 at the start)." in page) == said
        assert "| 0.50 (0.40 to 0.95) | ≥ 0.9 | **unclear** |" in page
        assert "| 0.93 (0.91 to 0.95) | ≥ 0.9 | reached |" in page
        assert "Rising rates" not in page


def test_the_page_shows_the_proofs_that_there_are() -> None:
    proof = {
        "circumstances": "Fifty changes.",
        "rows": [
            {"what": "failed", "value": 0, "unit": "", "wanted": "0", "held": True},
            {"what": "longest stall", "value": 141.5, "unit": "ms", "wanted": "< 100 ms", "held": False},
        ],
        "notes": ["A busy machine."],
    }
    page = serving_page.rendered({"parts": {}}, {"swaps": proof})
    assert "## Swaps\nFifty changes.\n" in page
    assert "| failed | 0 | 0 | held |" in page
    assert "| longest stall | 141.5 ms | < 100 ms | **not reached** |" in page
    assert "A busy machine." in page
    assert "## Faults" not in page


def test_requests_are_sent_when_due_and_their_time_counts_from_then() -> None:
    sending = 0

    async def one_after_another() -> Any:
        turn = asyncio.Lock()

        async def ask(_: bytes) -> int:
            nonlocal sending
            sending += 1
            async with turn:
                await asyncio.sleep(0.05)
            return 200

        return await at_rate(replace(PLAN, rate=100.0), ask)

    asked = asyncio.run(one_after_another())
    assert sending == asked.statuses[200] == len(asked.milliseconds)
    assert sending > 10
    # The n-th answer comes after n turns, although its request was due 10 ms after the one before, on average.
    assert max(asked.milliseconds) > 50 * sending - 1000 * PLAN.seconds
    assert asked.in_time < sending / 2


def test_requests_without_an_answer_are_counted() -> None:
    async def silent(_: bytes) -> int:
        await asyncio.sleep(60)
        return 200

    asked = asyncio.run(at_rate(replace(PLAN, rate=50.0, grace=0.05), silent))
    assert asked.milliseconds == []
    assert set(asked.statuses) == {UNANSWERED}


def test_clients_ask_again_when_they_have_their_answer() -> None:
    waiting, most = 0, 0

    async def ask(_: bytes) -> int:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.01)
        waiting -= 1
        return 200

    asked = asyncio.run(in_turn(replace(PLAN, clients=3, requests=12, seconds=60), ask))
    assert (asked.statuses[200], most) == (12, 3)
    assert asked.in_time == 12
    assert 0.04 <= asked.seconds < 60


def test_no_text_is_asked_twice_and_a_request_has_texts_of_its_task() -> None:
    seen: set[str] = set()
    for seed, mixed in itertools.product((1, 2), (False, True)):
        for request in requests(replace(PLAN, seed=seed + 2 * mixed, mixed=mixed), 20):
            head, _, body = request.partition(b"\r\n\r\n")
            texts = json.loads(body)["inputs"]
            assert len(texts) == 2
            assert not seen & set(texts)
            seen |= set(texts)
            if not mixed:
                task = "one" if b"Task: one\r\n" in head else "two"
                assert {text.rpartition(" ")[0] for text in texts} == set(PLAN.texts[task])


def test_lengths_can_be_varied() -> None:
    plan, draw = replace(PLAN, words=(1, 50)), random.Random(0)
    lengths = [len(fresh_text(plan, "one", draw, number).split()) - 1 for number in range(200)]
    assert min(lengths) == 1
    assert 40 < max(lengths) <= 50


def test_a_rival_answers_among_the_labels_of_the_task_that_it_is_told(work: Path, result: dict[str, Any]) -> None:
    modules = work / "-".join(["tiny-random", *(str(asdict(SIZES)[name]) for name in ("tasks", "examples", "epochs"))])
    modules /= "modules"
    names = sorted(folder.name for folder in modules.iterdir())
    rival = rivals.Rival("peft", "tiny-random", modules)
    texts = ["my card was swallowed", "what is my balance"]
    for name in names:
        labels = rivals.exported_labels(modules / name)
        alone = [rival.answer([text], name)[0] for text in texts]
        for one, together in zip(alone, rival.answer(texts, name), strict=True):
            assert set(one["labels"]) <= set(labels)
            assert one["scores"] == pytest.approx(together["scores"], rel=0.02)
    plain = rivals.Rival("plain", "tiny-random", modules).answer(texts, "")
    loop = rivals.Rival("loop", "tiny-random", modules).answer(texts, "")
    assert [one["scores"] for one in plain] == [pytest.approx(one["scores"], rel=0.02) for one in loop]
