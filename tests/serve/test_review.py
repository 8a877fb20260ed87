"""`/v1/review`: several reviewers over HTTP, reports of any caller, and learning as a job."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from conpet import AsyncClient, Client
from conpet.serve.keys import KEYS, KeyStore, Role
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

TASKS = stream()
FIRST = TASKS[0].labels[0]
TEXTS = [f"{example.text} again" for task in TASKS[:2] for example in task.test]


def ask(server: Served, path: str, key: dict[str, str], **body: Any) -> Any:
    return server.client.post(f"/v1/review/{path}", json=body, headers=key)


def ended(server: Served, job: str, key: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def done() -> bool:
        found.update(server.client.get(f"/v1/jobs/{job}", headers=key).json())
        return found["ended"] is not None

    wait_for(done)
    return found


def test_reviewers_share_the_queue_of_a_server_and_what_they_say_is_learned_by_a_job(tmp_path: Path) -> None:
    folder, records = workspace(tmp_path, 2).path, tmp_path / "records"
    records.mkdir()
    keys = KeyStore(folder / KEYS)
    ann, ben = ({"Authorization": f"Bearer {keys.create(Role.LEARN)[0]}"} for _ in range(2))
    asker = {"Authorization": f"Bearer {keys.create(Role.PREDICT)[0]}"}
    with served(folder, log_predictions="text", log_to=records) as server:
        answers = server.predict(TEXTS, headers={**asker, "X-Request-ID": "first"}).json()["predictions"]
        log = server.context.recorder.predictions
        wait_for(lambda: log.total() == len(TEXTS))
        assert ask(server, "draw", asker).status_code == 403
        drawn = ask(server, "draw", ann, random=4, uncertain=0, declined=0, seed=1).json()
        assert (drawn["population"], drawn["added"]) == (len(TEXTS), 4)
        reported = ask(server, "reports", asker, request_id="first", place=1, label=FIRST)
        assert reported.json()["waits"]
        one = ask(server, "next", ann, candidates=3).json()["item"]
        two = ask(server, "next", ben).json()["item"]
        assert (one["kind"], one["id"], two["id"] != one["id"]) == ("reported", reported.json()["item"], True)
        assert one["candidates"][0]["label"] == answers[0]["label"]
        assert log.total() == len(TEXTS)  # what is proposed is no prediction
        taken = ask(server, f"items/{one['id']}/answer", ben, verdict="skip")
        assert (taken.status_code, taken.json()["type"]) == (409, "urn:conpet:problem:review-conflict")
        assert ask(server, f"items/{one['id']}/answer", ann, verdict="correct", label="odd").status_code == 404
        done = ask(server, f"items/{one['id']}/answer", ann, verdict="correct", label=FIRST, seconds=12).json()
        assert (done["state"], done["right"]) == ("done", FIRST)
        assert ask(server, "undo", ann).json()["id"] == one["id"]
        ask(server, f"items/{one['id']}/answer", ann, verdict="correct", label=FIRST, seconds=12)
        named = ask(server, f"items/{two['id']}/answer", ben, verdict="new", label="brand new").json()
        assert named["verdicts"][0]["reviewer"].startswith("key ")
        status = server.client.get("/v1/review", headers=ann).json()
        assert (status["learnable"], status["new_labels"], len(status["reviewers"])) == (2, {"brand new": 1}, 2)
        assert server.client.get("/v1/review/items", headers=ann, params={"limit": 1}).json()["next"] == 1
        assert server.client.get(f"/v1/review/items/{one['id']}", headers=ben).json()["right"] == FIRST
        plan = server.client.get("/v1/review/plan", headers=ann).json()
        assert (plan["items"], plan["held"][0]["label"]) == (1, "brand new")
        assert ask(server, "learn", ann, gate=False).status_code == 403
        accepted = ask(server, "learn", ann, into=TASKS[1].name, evaluate=False)
        assert accepted.status_code == 202
        job = ended(server, accepted.json()["id"], ann)
        assert (job["kind"], job["state"]) == ("review", "succeeded"), job["error"]
        assert TASKS[1].name in {task["task"] for task in job["result"]["tasks"]}
        assert server.client.get("/v1/review", headers=ann).json()["learned"] == 2
        again = ended(server, ask(server, "learn", ann).json()["id"], ann)
        assert again["result"]["tasks"] == []
        assert server.client.get("/v1/review/accuracy", headers=ann).json()["estimate"]["population"] == len(TEXTS)


def test_the_clients_review_and_learn(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 2).path, log_predictions="text") as server:
        with Client(f"http://127.0.0.1:{server.port}") as client:
            client.predict(TEXTS[:4])
            wait_for(lambda: server.context.recorder.predictions.total() == 4)
            assert client.review_draw(random=2, uncertain=0, declined=0)["added"] == 2
            assert client.report("something odd", note="it is odd")
            item = client.review_next(candidates=2, reviewer="ann")
            assert item is not None
            assert (item["note"], len(item["candidates"])) == ("it is odd", 2)
            done = client.review_answer(item["id"], "correct", FIRST, reviewer="ann")
            assert done["right"] == FIRST
            assert client.review()["learnable"] == 1
            assert client.review_accuracy("1d")["estimate"]["value"] is None
            assert client.wait(client.learn_reviewed(evaluate=False)).result["tasks"][0]["task"] == TASKS[0].name
        assert asyncio.run(reviewed(server.port)) is not None


async def reviewed(port: int) -> dict[str, Any] | None:
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        return await client.review_next()


def test_tasks_of_label_studio_come_and_go(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 2).path) as server:
        imported = ask(server, "import", {}, rows=["one thing", {"text": "another thing", "label": FIRST}])
        assert imported.json() == {"items": 2, "known": 0, "verdicts": 1, "unchanged": 0}
        (task,) = server.client.get("/v1/review/export", params={"state": "open"}).json()
        value = {"choices": [FIRST]}
        task["annotations"] = [{"result": [{"type": "choices", "from_name": "label", "value": value}]}]
        assert ask(server, "import", {}, tasks=[task]).json()["verdicts"] == 1
        assert ask(server, "import", {}, tasks=[{"text": "a"}]).status_code == 422
        assert ask(server, "import", {}).status_code == 422
        root = ET.fromstring(server.client.get("/v1/review/config").text)  # noqa: S314 - our own server
        assert FIRST in [one.get("value") for one in root.iter("Choice")]
        assert ask(server, "draw", {}).status_code == 422
        assert ask(server, "draw", {}, below=2).status_code == 422
        assert ask(server, "reports", {}).status_code == 422
        assert ask(server, "next", {}, kind="imported").json()["item"] is None
        assert ask(server, "undo", {}, reviewer="somebody").status_code == 404
