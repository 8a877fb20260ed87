"""The client of a server, and the commands that use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from conpet import AsyncClient, Client, ConPET, Example, Examples, Prediction, Task
from conpet.errors import (
    AccessError,
    ConfigError,
    ConpetError,
    DataError,
    IdempotencyError,
    JobFailedError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
    UnknownNameError,
)
from conpet.jobs.records import JobKind, JobState
from tests.helpers.cli import conpet, write_rows
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, THIRD = stream()
TEXTS = [example.text for task in (FIRST, SECOND) for example in task.test]
URL = "http://conpet.test"
Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    return workspace(tmp_path_factory.mktemp("client"), 2)


@pytest.fixture(scope="module")
def server(learner: ConPET) -> Iterator[Served]:
    with served(learner.path) as running:
        yield running


@pytest.fixture(scope="module")
def url(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


def same(found: list[Prediction], expected: list[Prediction]) -> bool:
    return all(
        (one.label, one.task, one.version, one.generation, one.answer)
        == (other.label, other.task, other.version, other.generation, other.answer)
        and [candidate.label for candidate in one.runners_up] == [candidate.label for candidate in other.runners_up]
        and one.score == pytest.approx(other.score, abs=1e-5)
        and one.decision == other.decision
        and one.confidence == pytest.approx(other.confidence, abs=1e-4)
        and [candidate.label for candidate in one.candidates] == [candidate.label for candidate in other.candidates]
        for one, other in zip(found, expected, strict=True)
    )


def test_predictions_are_those_of_the_workspace(url: str, learner: ConPET) -> None:
    expected = learner.predict(TEXTS, top_n=2)
    with Client(url) as client:
        assert same(client.predict(TEXTS, top_n=2), expected)
        assert same(client.predict([Example.of_text(text) for text in TEXTS], top_n=2), expected)
        assert same(list(client.predict_stream(TEXTS, top_n=2, batch=3)), expected)
        (alone,) = client.predict(TEXTS[0], tasks=[SECOND.name], explain=True)
        assert alone.task == SECOND.name
        assert alone.explanation is not None
        assert [near.task for near in alone.explanation.nearest] == [SECOND.name] * len(alone.explanation.nearest)
        with pytest.raises(DataError, match="inputs: row 2: empty text") as raised:
            client.predict(["fine", " "])
        assert same(client.predict([{"text": text} for text in TEXTS], top_n=2), expected)
    assert raised.value.request_id


def test_tasks_are_listed_learned_and_removed(url: str, learner: ConPET) -> None:
    with Client(url) as client:
        assert [(task.name, task.version) for task in client.tasks()] == [(FIRST.name, 1), (SECOND.name, 1)]
        assert client.labels() == learner.owners
        assert [version.labels for version in client.versions(SECOND.name)] == [SECOND.labels]

        told: list[tuple[str, float]] = []
        job = client.learn(THIRD, needed_since=datetime.now(UTC).date() - timedelta(days=2))
        done = client.wait(job, timeout=240, progress=lambda stage, share: told.append((stage, share)))
        assert client.cost()["versions"][-1]["late_days"] == 2 * len(THIRD.labels)
        assert (done.state, done.tasks, done.kind) == (JobState.SUCCEEDED, (THIRD.name,), JobKind.LEARN)
        assert done.result is not None
        assert told
        assert all(one != other for one, other in pairwise(told))
        assert client.wait(client.learn(THIRD, evaluate=False)).result["tasks"][0]["skipped"]  # type: ignore[index]
        generation = done.result["generation"]
        assert client.predict(THIRD.test[0].text, min_generation=generation)[0].task == THIRD.name

        events = list(client.events(done.id))
        assert events[-1].ends
        assert list(client.events(done.id, events[-2].id)) == events[-1:]
        assert any("learned 2 labels" in message for _, message in client.log(done.id))

        more = Examples(tuple(Example.of_text(f"{one.text} x", one.label) for one in THIRD.test))
        assert client.wait(client.extend(more, evaluate=False)).result["tasks"][0]["version"] == 2  # type: ignore[index]
        assert client.wait(client.activate(THIRD.name, 1, evaluate=False)).state is JobState.SUCCEEDED
        assert client.wait(client.remove(THIRD.name, evaluate=False)).state is JobState.SUCCEEDED
        assert THIRD.name not in [task.name for task in learner.tasks]

        with pytest.raises(DataError, match="belongs to the earlier task") as raised:
            client.learn(Task("other", FIRST.train))
        assert len(raised.value.problems) == len(FIRST.train)
        with pytest.raises(UnknownNameError, match="no task 'nothing'"):
            client.remove("nothing")
        with pytest.raises(IdempotencyError):
            [client.activate(FIRST.name, 1, evaluate=way, idempotency_key="k") for way in (True, False)]
        cancelled = client.cancel(client.consolidate(bound=100).id)
        with pytest.raises(JobFailedError, match="was cancelled"):
            client.wait(cancelled)
        first, second = client.activate(FIRST.name, 1), client.remove("absent")
        assert client.wait(first).result["tasks"][0]["skipped"]  # type: ignore[index]
        with pytest.raises(JobFailedError, match="no task 'absent'") as failed:
            client.wait(second)
        assert failed.value.request_id
        assert [job.id for job in client.jobs(state="failed")] == [second.id]


def test_the_asynchronous_client_does_the_same(url: str, learner: ConPET) -> None:
    async def use() -> list[Prediction]:
        async with AsyncClient(url) as client:
            assert [task.name for task in await client.tasks()] == list(dict.fromkeys(learner.owners.values()))
            assert (await client.cost())["currency"] == "EUR"
            job = await client.learn([FIRST, SECOND], batch=2)
            states = [event.data["state"] async for event in client.events(job.id) if event.kind == "state"]
            assert states == ["queued", "running", "succeeded"]
            assert (await client.wait(job)).state is JobState.SUCCEEDED
            with pytest.raises(UnknownNameError):
                await client.job("nothing")
            answers = await asyncio.gather(*(client.predict(text, top_n=2) for text in TEXTS))
            streamed = [one async for one in client.predict_stream(TEXTS, top_n=2, batch=3)]
            assert same(streamed, [one for part in answers for one in part])
            return streamed

    assert same(asyncio.run(use()), learner.predict(TEXTS, top_n=2))


def test_the_commands_ask_a_server(url: str, learner: ConPET, tmp_path: Path) -> None:
    shown = conpet("predict", "--server", url, *TEXTS[:2], "--top", 1)
    assert (shown.code, shown.err) == (0, "")
    assert [row["label"] for row in shown.rows] == [one.label for one in learner.predict(TEXTS[:2])]
    inputs = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    assert conpet("predict", "--server", url, "-i", inputs, "-o", tmp_path / "out.csv").code == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == len(TEXTS) + 1
    mixed = [{"id": 1, "text": TEXTS[0]}, {"id": 2, "text": ""}, {"id": 3, "tokens": ["a"], "mention": [0, 1]}]
    some = write_rows(tmp_path / "mixed.jsonl", mixed)
    reported = conpet("predict", "--server", url, "-i", some, "--on-error", "report", "--min-score", 1).rows
    assert [row["id"] for row in reported] == [1, 2, 3]
    assert reported[0]["rejected"] == learner.predict(TEXTS[:1])[0].label
    assert (reported[1]["error"], "the tasks are of kind text" in reported[2]["error"]) == ("empty text", True)
    assert [row["id"] for row in conpet("predict", "--server", url, "-i", some, "--on-error", "skip").rows] == [1]
    refused = conpet("predict", "--server", url, "-i", some)
    assert (refused.code, "row 2: empty text" in refused.err) == (1, True)

    rows = [{"text": one.text, "label": one.label} for one in THIRD.train]
    learned = conpet("learn", "--server", url, write_rows(tmp_path / "third.jsonl", rows), "--no-evaluate")
    assert learned.code == 0, learned.err
    assert "third: learned 2 labels as version 1" in learned.out
    folder = write_rows(tmp_path / "tasks" / "third" / "train.jsonl", rows).parents[1]
    assert "already learned from the same data" in conpet("learn", folder, "--server", url).out
    wrong = conpet("learn", "--server", url, write_rows(tmp_path / "w.jsonl", [{"text": ""}]), "--verbose")
    assert (wrong.code, "the upload: row 1: empty text" in wrong.err) == (1, True)
    assert "(request " in wrong.err
    table = tmp_path / "third.tsv"
    table.write_text("".join(f"{row['text']}\t{row['label']}\n" for row in rows))
    read_here = conpet("learn", table, "--server", url, "--text-column", 1, "--label-column", 2, "--no-evaluate")
    assert "already learned from the same data" in read_here.out, read_here.err
    for arguments in (
        ("--wait", 3),
        ("--device", "cpu"),
        ("--fix",),
        ("--mixed",),
        ("--consolidate", "doubling"),
        (tmp_path,),
    ):
        assert conpet("learn", folder, "--server", url, *arguments).code == 2
    assert conpet("predict").code == 2
    assert "give a workspace and the data" in conpet("learn", learner.path).err
    assert conpet("predict", "--server", "nowhere", "x").err.startswith("error: 'nowhere' is not the address")


def client_of(handler: Handler, **options: Any) -> Client:
    return Client(URL, "secret", transport=httpx2.MockTransport(handler), **options)


def problem(status: int, kind: str, **more: Any) -> httpx2.Response:
    document = {"type": f"urn:conpet:problem:{kind}", "title": "", "status": status, "detail": "what is wrong", **more}
    return httpx2.Response(status, json=document, headers={"X-Request-ID": "r7", "Retry-After": "0"})


JOB = {
    "id": "j",
    "kind": "learn",
    "state": "queued",
    "tasks": [],
    "options": {},
    "created": "2030-01-01T00:00:00+00:00",
    "started": None,
    "ended": None,
    "attempts": 0,
    "progress": None,
    "result": None,
    "error": None,
}


def test_a_request_is_sent_again_with_the_same_key_until_the_server_takes_it() -> None:
    seen: list[httpx2.Request] = []
    answers = [problem(503, "not-ready"), None, problem(429, "rate-limited"), httpx2.Response(202, json=JOB)]

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        response = answers[len(seen) - 1]
        if response is None:
            raise httpx2.ReadError("the connection broke")
        return response

    with client_of(answer) as client:
        assert client.learn(FIRST).id == "j"
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert len(seen) == 4
    assert {request.headers["Authorization"] for request in seen} == {"Bearer secret"}
    assert [task["name"] for task in json.loads(seen[0].content)["tasks"]] == [FIRST.name]


def test_it_waits_as_long_as_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    answers = iter([httpx2.Response(429, headers={"Retry-After": "7"}), httpx2.Response(200, json={"tasks": []})])
    with client_of(lambda request: next(answers)) as client:
        assert client.tasks() == []
    assert waited == [7.0]


@pytest.mark.parametrize(
    ("response", "error", "sent"),
    [
        (problem(401, "unauthorized"), AccessError, 1),
        (problem(403, "forbidden"), AccessError, 1),
        (problem(404, "not-found"), UnknownNameError, 1),
        (problem(409, "no-tasks"), DataError, 1),
        (problem(422, "refused"), ConfigError, 1),
        (problem(422, "invalid-data", errors=[{"source": "f", "row": 2, "detail": "bad"}]), DataError, 1),
        (problem(503, "stopping"), ServerBusyError, 3),
        (problem(504, "timeout"), ServerBusyError, 1),
        (problem(500, "internal-error"), ServerError, 1),
        (httpx2.Response(502, text="<html>", headers={"X-Request-ID": "r7"}), ServerError, 1),
    ],
)
def test_errors_have_types_and_the_id_of_the_request(
    response: httpx2.Response, error: type[ConpetError], sent: int
) -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return response

    with client_of(answer, retries=2) as client, pytest.raises(error) as raised:
        client.predict("x")
    assert (raised.value.request_id, len(seen)) == ("r7", sent)


def test_labels_are_renamed_split_and_retired(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 1).path) as running, Client(f"http://127.0.0.1:{running.port}") as client:
        first, second = FIRST.labels
        renamed = client.rename(first, "new name", evaluate=False, idempotency_key="once")
        assert (renamed.kind, renamed.tasks) == (JobKind.RENAME, (FIRST.name,))
        assert client.rename(first, "new name", evaluate=False, idempotency_key="once").id == renamed.id
        assert client.wait(renamed).result["tasks"][0]["version"] == 2  # type: ignore[index]
        with pytest.raises(UnknownNameError, match="no label"):
            client.retire(first)
        finer = [
            one.labelled(f"finer {number % 2}")
            for number, one in enumerate(row for row in FIRST.train if row.label == first)
        ]
        with pytest.raises(DataError, match="cannot be learned"):
            client.split_label("new name", [Example.of_text(" ", "finer 0"), finer[0]])
        assert client.wait(client.split_label("new name", finer, evaluate=False)).state is JobState.SUCCEEDED
        assert client.wait(client.retire("finer 1", evaluate=False)).state is JobState.SUCCEEDED
        wait_for(lambda: set(client.labels()) == {"finer 0", second})


def test_an_unreachable_server_and_wrong_arguments() -> None:
    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with client_of(broken, retries=1) as client, pytest.raises(ServerUnreachableError, match=URL):
        client.tasks()
    for wrong in ("localhost:8000", "ftp://x", "http://"):
        with pytest.raises(ConfigError, match="not the address of a server"):
            Client(wrong)
    with pytest.raises(ConfigError, match="top_n=0"):
        Client(URL).predict("x", top_n=0)
    with pytest.raises(DataError, match=r"inputs: row 2: is of type int; give a text"):
        Client(URL).predict(["fine", 5])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="send a data file with `learn_file`"):
        Client(URL).learn("cards.csv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a server takes JSONL, CSV and Parquet"):
        Client(URL).learn_file("x.xml")


def test_a_broken_stream_of_events_is_resumed() -> None:
    asked: list[str] = []

    def event(number: int, kind: str, **data: Any) -> str:
        document = json.dumps({"time": "2030-01-01T00:00:00+00:00", **data})
        return f"id: {number}\nevent: {kind}\ndata: {document}\n\n"

    parts = [
        ": hello\n\n" + event(1, "state", state="queued") + event(2, "log", message="a"),
        event(5, "progress", stage="module", share=0.5) + event(6, "state", state="succeeded"),
    ]

    def answer(request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/events"):
            return httpx2.Response(200, json=JOB)
        asked.append(request.headers["Last-Event-ID"])
        return httpx2.Response(200, text=parts[len(asked) - 1], headers={"Content-Type": "text/event-stream"})

    with client_of(answer) as client:
        assert [event.id for event in client.events("j")] == [1, 2, 5, 6]
    assert asked == ["0", "2"]
