"""New generations under load: every answer is the one of the generation that it names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conpet import Client, ConPET, Task
from conpet.errors import DamagedModuleError
from conpet.store import Store
from tests.helpers.cli import conpet, write_rows
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for task in stream() for example in task.test[:3]]


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["score"] for one in (answer, *answer["runners_up"])}


def ask_until(done: threading.Event, server: Served, number: int, answers: list[Any], statuses: set[int]) -> None:
    """Ask the same texts, in requests of many sizes, until told to stop."""
    size = (2, len(TEXTS))[number]
    with server.new_client() as client:
        while not done.wait(0.01):
            response = client.post("/v1/predict", json={"inputs": TEXTS[:size], "top_n": 10})
            statuses.add(response.status_code)
            answers.append(response.json())


def relearned(task: Task) -> Task:
    """Return a task with its two labels exchanged."""
    a, b = task.labels
    subsets = (task.train, task.validation, task.test)
    return Task(task.name, *(tuple(one.labelled(b if one.label == a else a) for one in rows) for rows in subsets))


def test_every_answer_under_load_is_that_of_its_generation(tmp_path: Path) -> None:
    folder, (first, second) = workspace(tmp_path, 2).path, stream()[:2]
    changes: list[Callable[[ConPET], object]] = [
        lambda learner: learner.learn(relearned(first), evaluate=False),
        lambda learner: learner.rollback(first.name, 1, evaluate=False),
        lambda learner: learner.remove(second.name, evaluate=False),
    ]
    expected: dict[int, list[dict[str, Any]]] = {}
    done, statuses, answers = threading.Event(), set[int](), [list[Any]() for _ in range(2)]

    def note() -> int:
        with ConPET.open(folder) as learner:
            generation = learner.store.generation()
            expected[generation] = [one.to_json() for one in learner.predict(TEXTS, top_n=10)]
        return generation

    note()
    # Batches of few inputs, so that generations change in the middle of requests.
    with served(folder, batch_inputs=2, poll_seconds=0.02) as server:
        threads = [
            threading.Thread(target=ask_until, args=(done, server, number, own, statuses))
            for number, own in enumerate(answers)
        ]
        for thread in threads:
            thread.start()
        try:
            for change in changes:
                with ConPET.open(folder) as learner:
                    change(learner)
                generation = note()
                assert server.predict("a", min_generation=generation).json()["generation"] == generation
                for own in answers:
                    wait_for(lambda own=own: own[-1]["generation"] == max(expected))  # type: ignore[misc]
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert statuses == {200}
    seen = [response["generation"] for own in answers for response in own]
    assert set(seen) == set(expected)
    for own in answers:
        generations = [response["generation"] for response in own]
        assert generations == sorted(generations)
        for response in own:
            right = expected[response["generation"]]
            for found, wanted in zip(response["predictions"], right, strict=False):
                assert found["generation"] == response["generation"]
                assert scores(found) == pytest.approx(scores(wanted), abs=1e-4)


def test_a_change_is_seen_without_requests(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    with served(learner.path) as server:
        before = server.client.get("/readyz").json()["generation"]
        learner.remove(stream()[0].name, evaluate=False)
        after = learner.store.generation()
        answered = server.predict("a", min_generation=after, top_n=9).json()
        assert answered["generation"] == after > before
        tasks = server.client.get("/v1/tasks").json()["tasks"]
        assert [task["name"] for task in tasks] == [stream()[1].name]


def test_a_module_relearned_under_its_name_is_never_answered_from_what_is_cached(tmp_path: Path) -> None:
    """The states of the frozen layers lie below every module; outputs of modules are kept by version."""
    learner, task = workspace(tmp_path, 2, fusion={"skip_above": None}), stream()[0]
    texts = [example.text for example in task.train]
    with served(learner.path) as server:
        first = server.predict(texts, top_n=9).json()
        again = server.predict(texts, top_n=9).json()
        assert list(map(scores, again["predictions"])) == [
            pytest.approx(scores(one), abs=1e-5) for one in first["predictions"]
        ]
        learner.learn(relearned(task), evaluate=False)
        after = server.predict(texts, top_n=9, min_generation=learner.store.generation()).json()
    expected = [one.to_json() for one in ConPET.open(learner.path).predict(texts, top_n=9)]
    assert list(map(scores, after["predictions"])) == [pytest.approx(scores(one), abs=1e-5) for one in expected]
    assert {one["version"] for one in after["predictions"] if one["task"] == task.name} == {2}
    assert list(map(scores, after["predictions"])) != list(map(scores, first["predictions"]))


def test_a_generation_that_cannot_be_loaded_leaves_the_former_one_answering(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    with served(learner.path) as server:
        first = server.predict(TEXTS[:3]).json()
        learner.learn(stream()[1], evaluate=False)
        server_sees = server.predict("a", min_generation=learner.store.generation())
        assert server_sees.status_code == 200
        (learner.path / "workspace.sqlite").rename(tmp_path / "away")
        wait_for(lambda: "newer_generation" in server.client.get("/readyz").json())
        assert server.client.get("/readyz").json()["newer_generation"] == "cannot be loaded"
        assert server.predict(TEXTS[:3]).json()["generation"] == server_sees.json()["generation"] > first["generation"]
        (tmp_path / "away").rename(learner.path / "workspace.sqlite")
        learner.remove(stream()[1].name, evaluate=False)
        assert server.predict("a", min_generation=learner.store.generation()).status_code == 200
        assert "newer_generation" not in server.client.get("/readyz").json()


def test_a_failure_without_a_message_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def fail(store: Store) -> int:
        looks.append(store)
        raise MemoryError

    with served(workspace(tmp_path, 1).path, poll_seconds=0.01) as server:
        monkeypatch.setattr(Store, "generation", fail)
        wait_for(lambda: len(looks) > 3)
        monkeypatch.undo()
        assert 'conpet_swaps_total{result="failed"} 1.0' in server.client.get("/metrics").text


def test_a_damaged_module_fails_only_the_requests_that_need_it(tmp_path: Path) -> None:
    learner, (damaged, intact) = workspace(tmp_path, 2, fusion={"skip_above": None}), stream()[:2]
    for file in learner.tasks[0].active.objects["module"].folder.glob("*adapter*.safetensors"):
        file.unlink()
    with served(learner.path) as server:
        assert server.predict("a", tasks=[intact.name]).status_code == 200
        failed = server.predict("a", tasks=[damaged.name])
        assert (failed.status_code, failed.json()["type"]) == (503, "urn:conpet:problem:damaged-module")
        assert "Retry-After" not in failed.headers
        assert str(tmp_path) not in failed.text
        assert server.predict("a", tasks=[intact.name]).status_code == 200


def test_all_inputs_that_need_a_damaged_module_are_named(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, fusion={"skip_above": None})
    for file in learner.tasks[0].active.objects["module"].folder.glob("*adapter*.safetensors"):
        file.unlink()
    needing, others = ([example.text for example in task.test] for task in stream()[:2])
    inputs = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in [others[0], *needing, others[1]]])
    with served(learner.path, batch_inputs=2) as server:  # the request is answered in several batches
        url = f"http://127.0.0.1:{server.port}"
        failed = server.predict([others[0], *needing, others[1]])
        assert failed.status_code == 503
        assert [one["pointer"] for one in failed.json()["errors"]] == [
            f"/inputs/{at + 1}" for at in range(len(needing))
        ]
        with Client(url) as client, pytest.raises(DamagedModuleError, match="the others can be answered") as error:
            client.predict([needing[0], others[0], needing[1]])
        assert error.value.inputs == (1, 3)
        rows = conpet("predict", "--server", url, "-i", inputs, "--on-error", "report").rows
    assert ["error" in row for row in rows] == [False, *[True] * len(needing), False]
